//! R12: most other hosts have gone silent at once. Then it is more likely that this host lost the network than that they all died.
//!
//! It does not: judge anybody. In a storm a host is called failed later; [`Hosts`](super::Hosts) sees to that.

use crate::event::Event;
use crate::out::Out;
use serde::{Deserialize, Serialize};

/// Whether there is a storm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Storm {
    on: bool,
}

impl Storm {
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// `silent` of so many other hosts are silent and not judged for it yet. Says so when a storm begins and when it is over.
    pub(crate) fn watch(&mut self, silent: usize, of: usize, out: &mut Out<'_>) {
        let begins = silent >= 2 && silent * 2 > of;
        if begins && !self.on {
            let (silent, of) = (silent as u32, of as u32);
            out.event(Event::StormSuspected { silent, of });
        } else if self.on && silent == 0 {
            out.event(Event::StormOver);
        }
        // It lasts until everybody has been judged: the first one's judgement is not the end of it.
        self.on = begins || (self.on && silent > 0);
    }
}
