//! A buffer that O_DIRECT accepts: it begins at an address that is a multiple of the block size.
//!
//! Why not an allocator call: taking one block more than needed and starting inside it needs no unsafe code.

use mainstay_formats::layout::{BLOCK, round_up};

/// Zeroed bytes, aligned; the length is rounded up to whole blocks.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    pub(crate) fn zeroed(length: usize) -> Self {
        let length = round_up(length);
        let bytes = vec![0u8; length + BLOCK];
        // The vector is never resized, so its address stays.
        let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { bytes, start, length }
    }

    pub(crate) fn from_slice(content: &[u8]) -> Self {
        let mut buffer = Self::zeroed(content.len());
        buffer.as_mut_slice()[..content.len()].copy_from_slice(content);
        buffer
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_whole_blocks() {
        for length in [1, 512, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuffer::zeroed(length);
            assert_eq!(buffer.as_slice().as_ptr() as usize % BLOCK, 0);
            assert_eq!(buffer.as_slice().len(), round_up(length));
        }
    }
}
