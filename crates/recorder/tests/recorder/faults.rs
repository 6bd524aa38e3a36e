//! Damage, foreign versions, bounds and a full disk.

use crate::common::{Lonely, replay, run};
use mainstay_core::Time;
use mainstay_recorder::{End, Options, ReadError, must_agree, read_header, read_segment, segments_of};
use mainstay_testkit::PATIENCE;
use mainstay_testkit::made::config;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options with small segments, so that a test has several.
fn options(dir: &Path) -> Options {
    Options { segment_bytes_max: 8 << 10, queue_max: 1 << 16, ..Options::new(dir.into(), 1 << 30) }
}

/// Records so many steps into one segment and gives its path.
fn one_segment(dir: &Path, steps: usize) -> PathBuf {
    let mut lonely = Lonely::start(Options { segment_bytes_max: 1 << 30, ..options(dir) });
    for _ in 0..steps {
        lonely.step();
    }
    assert!(lonely.recorder.close(PATIENCE), "all is written");
    let [path] = segments_of(dir).expect("a recording").try_into().expect("one segment");
    path
}

#[test]
fn a_recording_is_readable_by_its_owner_only_and_says_what_it_is_in_its_first_line() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let path = one_segment(&dir.path().join("flight"), 3);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&dir.path().join("flight"))), (0o600, 0o700));
    assert!(std::fs::read(&path).expect("bytes").starts_with(b"mainstay-flight 1 0.1.0\n"));
    assert_eq!(segments_of(dir.path()).expect("the state directory serves too"), std::slice::from_ref(&path));
    let header = read_header(&path).expect("a header");
    assert_eq!((header.segment, header.continues, header.config), (1, None, config()));
}

#[test]
fn the_ring_never_exceeds_its_bound_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a folder");
    let bound = 64 << 10;
    let (mut last, mut written, mut largest) = (Time(0), 0, 0);
    while written < 5 * bound {
        let mut lonely = Lonely::start(Options { bytes_max: bound, queue_max: 64, ..options(dir.path()) });
        lonely.step_until("two segments", |counts| counts.segments > 2);
        written += lonely.recorder.counts().bytes;
        last = lonely.now;
        assert!(lonely.recorder.close(PATIENCE));
        let paths = segments_of(dir.path()).expect("segments");
        let sum: u64 = paths.iter().map(|path| std::fs::metadata(path).expect("it is there").len()).sum();
        assert!(sum <= bound, "{sum} bytes");
        largest = largest.max(sum);
    }
    assert!(largest > bound / 2, "{largest}");
    let newest = segments_of(dir.path()).expect("segments").pop().expect("one");
    assert_eq!(
        newest.file_name().and_then(|name| name.to_str()).map(|name| name > "flight-00000003.rec"),
        Some(true)
    );
    let step = read_segment(&newest).expect("a segment").steps.pop().expect("a step");
    assert!(step.at <= last);
    replay(dir.path());
}

#[test]
fn the_next_run_goes_on_with_a_segment_that_continues_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    one_segment(dir.path(), 5);
    let mut lonely = Lonely::start(options(dir.path()));
    lonely.step();
    assert!(lonely.recorder.close(PATIENCE));
    let paths = segments_of(dir.path()).expect("segments");
    let segments: Vec<_> = paths.iter().map(|path| read_segment(path).expect("a segment")).collect();
    assert_eq!(segments.iter().map(|segment| segment.steps.len()).collect::<Vec<_>>(), [5, 1]);
    assert_eq!((segments[1].header.segment, segments[1].header.continues), (2, None));
    assert!(!must_agree(&segments[0], &segments[1].header));
}

#[test]
fn a_torn_tail_costs_only_the_last_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = one_segment(dir.path(), 20);
    let whole = std::fs::read(&path).expect("bytes");
    let before = read_segment(&path).expect("a segment");
    std::fs::write(&path, &whole[..whole.len() - 3]).expect("cut");
    let torn = read_segment(&path).expect("still a segment");
    let End::Torn { offset } = torn.end else { panic!("{:?}", torn.end) };
    assert!((offset as usize) < whole.len() - 3);
    assert_eq!(torn.steps, before.steps[..19]);

    // What a power failure leaves: the length is on disk, the contents aren't.
    let mut zeroes = whole.clone();
    zeroes.extend([0; 4096]);
    std::fs::write(&path, zeroes).expect("extended");
    let torn = read_segment(&path).expect("still a segment");
    assert_eq!((torn.end, torn.steps.len()), (End::Torn { offset: whole.len() as u64 }, 20));
}

#[test]
fn a_damaged_frame_is_named_by_its_offset_and_the_steps_before_it_are_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = one_segment(dir.path(), 20);
    let whole = std::fs::read(&path).expect("bytes");
    let steps = read_segment(&path).expect("a segment").steps;
    for back in [20, 200, 401] {
        let mut damaged = whole.clone();
        let at = whole.len() - back;
        damaged[at] ^= 0x10;
        std::fs::write(&path, damaged).expect("damaged");
        let segment = read_segment(&path).expect("still a segment");
        let End::Damaged { offset, reason } = segment.end else { panic!("{:?}", segment.end) };
        assert!(offset as usize <= at && at - (offset as usize) < 64, "{offset} for {at}: {reason}");
        assert!(segment.steps.len() < 20);
        assert_eq!(segment.steps, steps[..segment.steps.len()]);
    }
}

#[test]
fn a_damaged_or_cut_off_checkpoint_is_told_with_its_offset() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = one_segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("bytes");
    for length in [0, 5, 24, 30] {
        std::fs::write(&path, &whole[..length]).expect("cut");
        let error = read_segment(&path).expect_err("no header");
        assert!(matches!(&error, ReadError::Unusable { what: "header", .. }), "{length}: {error}");
    }
    let mut damaged = whole.clone();
    let at = whole.len() - 300;
    damaged[at] ^= 1;
    std::fs::write(&path, damaged).expect("damaged");
    let error = read_segment(&path).expect_err("no checkpoint").to_string();
    assert!(error.contains("the checkpoint at byte") && error.contains("damaged"), "{error}");
    assert!(read_header(&path).is_ok());
}

#[test]
fn foreign_formats_and_foreign_files_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = one_segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("bytes");
    let mut foreign = b"mainstay-flight 2 9.9.9\n".to_vec();
    foreign.extend_from_slice(&whole[24..]);
    std::fs::write(&path, foreign).expect("written");
    let error = read_segment(&path).expect_err("refused").to_string();
    assert!(error.contains("mainstay 9.9.9 in format 2") && error.contains("replay it with that"), "{error}");
    std::fs::write(&path, "something else").expect("written");
    assert!(matches!(read_segment(&path), Err(ReadError::NotARecording { .. })));
    let empty = tempfile::tempdir().expect("a folder");
    assert!(matches!(segments_of(empty.path()), Err(ReadError::NotARecording { .. })));
}

#[test]
fn a_folder_that_can_not_be_made_is_tried_again_until_it_can() {
    let dir = tempfile::tempdir().expect("a folder");
    let blocked = dir.path().join("flight");
    std::fs::write(&blocked, "in the way").expect("a file");
    let retry_after = Duration::from_millis(5);
    let mut lonely = Lonely::start(Options { retry_after, ..options(&blocked) });
    lonely.step_until("lost steps", |counts| counts.lost > 3);
    std::fs::remove_file(&blocked).expect("removed");
    lonely.step_until("recording", |counts| counts.segments == 1);
    let lost = lonely.recorder.counts().lost;
    assert!(lonely.recorder.close(PATIENCE));
    let segment = read_segment(&segments_of(&blocked).expect("segments")[0]).expect("a segment");
    assert_eq!((segment.header.continues, segment.header.lost_before > 3), (None, true));
    assert!(segment.header.lost_before <= lost);
}

#[test]
fn a_full_disk_costs_steps_until_there_is_room_and_the_end_is_marked() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(_mounted) = SmallDisk::mount(dir.path()) else {
        eprintln!(
            "SKIPPED a_full_disk_costs_steps_until_there_is_room_and_the_end_is_marked: mounting needs root"
        );
        return;
    };
    let flight = dir.path().join("flight");
    std::fs::write(dir.path().join("ballast"), [1; 32 << 10]).expect("it fits");
    let retry_after = Duration::from_millis(5);
    let mut lonely = Lonely::start(Options { segment_bytes_max: 1 << 20, retry_after, ..options(&flight) });
    lonely.step_until("a full disk", |counts| counts.lost > 10);
    std::fs::remove_file(dir.path().join("ballast")).expect("removed");
    let before = lonely.recorder.counts();
    lonely.step_until("recording again", |counts| {
        counts.segments > before.segments && counts.recorded > before.recorded
    });
    assert!(lonely.recorder.close(PATIENCE));

    let paths = segments_of(&flight).expect("segments");
    let segments: Vec<_> =
        paths.iter().map(|path| read_segment(path).expect("whole up to the mark")).collect();
    assert!(segments.len() >= 2);
    // On a disk that is full to the last byte the mark itself may not fit; then the next segment tells.
    assert!(matches!(segments[0].end, End::Broken { .. } | End::Whole), "{:?}", segments[0].end);
    assert!(segments[1].header.lost_before > 0 && segments[1].header.continues.is_none());
    assert!(!must_agree(&segments[0], &segments[1].header));
    for segment in &segments {
        run(segment);
    }
}

/// A tmpfs of 64 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let nothing: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(nothing, at, Some("tmpfs"), flags, Some("size=64k")).ok()?;
        Some(SmallDisk(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}
