//! The files of the ring: their names, their sizes, and which goes when room is needed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The path of the segment of that number.
pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("flight-{number:08}.rec"))
}

/// The number in a segment's file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("flight-")?.strip_suffix(".rec")?;
    let plain = digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// The numbers of the segments in that folder, in their order.
pub(crate) fn numbers_in(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// All segments but the one that is being written.
pub(crate) struct Ring {
    dir: PathBuf,
    bytes_max: u64,
    /// Number and size, oldest first.
    closed: VecDeque<(u64, u64)>,
    closed_bytes: u64,
    /// Higher than all that there ever were.
    next: u64,
}

impl Ring {
    /// The ring in that folder, which is made if need be.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Ring> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut ring =
            Ring { dir: dir.to_path_buf(), bytes_max, closed: VecDeque::new(), closed_bytes: 0, next: 1 };
        for number in numbers_in(dir)? {
            let bytes = std::fs::metadata(path_of(dir, number))?.len();
            ring.close(number, bytes);
        }
        Ok(ring)
    }

    /// Creates the next segment's file.
    pub(crate) fn create(&mut self) -> io::Result<(u64, File)> {
        let number = self.next;
        let path = path_of(&self.dir, number);
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        self.next = number + 1;
        Ok((number, file))
    }

    /// Removes the file of a segment that could not be begun.
    pub(crate) fn discard(&self, number: u64) {
        // If it stays, it is a file without a checkpoint: readers say so and go on, and it counts at the next start.
        let _ = std::fs::remove_file(path_of(&self.dir, number));
    }

    /// That segment is not written any more.
    pub(crate) fn close(&mut self, number: u64, bytes: u64) {
        self.closed.push_back((number, bytes));
        self.closed_bytes += bytes;
        self.next = self.next.max(number + 1);
    }

    /// Removes the oldest segments until one of that size fits beside the rest, or none is left.
    pub(crate) fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.closed_bytes + bytes > self.bytes_max {
            let Some((number, freed)) = self.closed.front().copied() else { return Ok(()) };
            match std::fs::remove_file(path_of(&self.dir, number)) {
                Ok(()) => {}
                // A person was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.closed.pop_front();
            self.closed_bytes -= freed;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_numbers_and_nothing_else_is_a_segment() {
        assert_eq!(path_of(Path::new("/x"), 42), Path::new("/x/flight-00000042.rec"));
        assert_eq!(number_of("flight-00000042.rec"), Some(42));
        assert_eq!(number_of("flight-123456789.rec"), Some(123_456_789));
        for wrong in ["flight-42.rec", "flight-00000042.rec.gz", "flight-+0000042.rec", "events.jsonl"] {
            assert_eq!(number_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_numbers_are_never_used_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ring = Ring::open(dir.path(), 100).expect("a ring");
        for _ in 0..3 {
            let (number, _) = ring.create().expect("a file");
            ring.close(number, 40);
            ring.make_room(0).expect("room");
        }
        assert_eq!(numbers_in(dir.path()).expect("a list"), [2, 3]);
        ring.make_room(100).expect("room");
        assert_eq!(numbers_in(dir.path()).expect("a list"), [0u64; 0]);
        let (number, _) = ring.create().expect("a file");
        assert_eq!(number, 4);
        assert_eq!(Ring::open(dir.path(), 100).expect("again").next, 5);
    }
}
