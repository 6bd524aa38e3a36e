//! A bounded queue between the agent and one thread of a datastore, with two lanes: urgent items first.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// Which items go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Writes: leases and ownership hang on them.
    Urgent,
    /// Everything else: it waits for what is urgent.
    Normal,
}

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    urgent: VecDeque<T>,
    normal: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { urgent: VecDeque::new(), normal: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Never waits. A full (or closed) queue gives the item back, with the number of those that wait.
    pub(crate) fn push(&self, lane: Lane, item: T) -> Result<(), (T, usize)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = state.urgent.len() + state.normal.len();
        if waiting >= self.capacity || state.closed {
            return Err((item, waiting));
        }
        match lane {
            Lane::Urgent => state.urgent.push_back(item),
            Lane::Normal => state.normal.push_back(item),
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for an item; `None` once the queue was closed.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.urgent.pop_front().or_else(|| state.normal.pop_front()) {
                return Some(item);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_items_go_first_and_a_full_queue_refuses() {
        let queue = Queue::new(3);
        for (lane, item) in [(Lane::Normal, 1), (Lane::Normal, 2), (Lane::Urgent, 3)] {
            assert_eq!(queue.push(lane, item), Ok(()));
        }
        assert_eq!(queue.push(Lane::Urgent, 4), Err((4, 3)));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(3), Some(1), Some(2)]);
        queue.close();
        assert_eq!(queue.pop(), None);
    }
}
