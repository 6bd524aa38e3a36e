//! The flight recorder of an agent. A core is deterministic, so its inputs with their times are all that is needed to see
//! again, step by step, what it did and why: this crate keeps them in a bounded ring of files, and reads them back.
//!
//! A *segment* is a file `flight-NNNNNNNN.rec`: a line of text with the version of the format, a header ([`Header`]), a
//! checkpoint (the whole core, see [`Checkpoint`]), then one frame for each step ([`Step`]). Each segment can be replayed
//! without those before it, and its checkpoint is what the replay of the segment before it must end in: each recording
//! proves that the core is deterministic, or shows where it is not.
//!
//! Invariants: who records never waits for the disk (a thread of its own writes; what does not fit is counted as lost, and
//! the recording goes on with a new checkpoint). The files are never larger together than the bound. What a crash of the
//! agent takes is at most what was recorded in the last 500 ms; a power failure takes at most about the last second.
//!
//! Secrets: a core never sees one (keys and certificates stay in the agent's shell), so there is none in a recording. Names
//! of hosts, datastores and VMs are; the files are readable by their owner only.
//!
//! What it does not do: it does not record effects (they follow from the inputs), and it promises nothing about a recording
//! of another software version, except to say so.

mod error;
mod format;
mod reader;
mod recorder;
mod replay;
mod ring;
mod writer;

pub use error::{ReadError, RecorderError};
pub use format::{Checkpoint, FORMAT_VERSION, Header, Step};
pub use reader::{End, Segment, read_header, read_segment, segments_of};
pub use recorder::{Counts, Identity, Options, Recorder};
pub use replay::{divergence, must_agree};
