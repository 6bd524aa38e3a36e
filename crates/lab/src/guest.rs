//! The guest and what it tells: its disk image, the record that it keeps on its disk, and the commands that it obeys.
//!
//! The program is `guest/guest.asm`; the layout of the disk is described there and must be the same here.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::error::{At, LabError, Result};
use crate::exec::run;

const SOURCE: &str = include_str!("../guest/guest.asm");
const SECTOR: u64 = 512;
const COMMAND_SECTOR: u64 = 16;
const RECORD_SECTOR: u64 = 24;
const SPLIT_SECTOR: u64 = 32;
const SPLIT_SLOTS: u64 = 16;
const AGENT_TICKS_AT: usize = 0x1b0;
const COMMAND_TICKS_AT: usize = 0x1b4;
const BEAT_TICKS_AT: usize = 0x1b8;
const NAME_AT: usize = 0x1c0;
const NAME_SIZE: usize = 32;
const MAGIC: u32 = 0x3147_4c4d;
/// SeaBIOS does not boot from much smaller disks.
const DISK_SIZE: u64 = 1 << 20;

/// What a VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestKind {
    /// The lab's own program. A beat lasts this many ticks of 55 ms: 4 is the usual five times a second or so.
    Beating {
        /// Ticks per beat.
        beat_ticks: u32,
    },
    /// Nothing: an empty disk that can't be booted. The VM runs as far as the hypervisor knows, and never beats.
    Dead,
}

impl Default for GuestKind {
    fn default() -> Self {
        GuestKind::Beating { beat_ticks: 4 }
    }
}

/// A guest agent of the lab's own guest: it answers what libvirt asks of qemu-ga, and runs commands only in name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestAgent {
    /// So long after each boot it is silent, never less: what is asked until then is lost.
    pub answers_after: Duration,
    /// From so long after each boot on, never less, commands that it runs succeed. Until then they end with exit code 1.
    pub commands_succeed_after: Duration,
}

impl GuestAgent {
    /// One that answers from then on, and whose commands succeed.
    pub fn answering_after(time: Duration) -> Self {
        GuestAgent { answers_after: time, commands_succeed_after: Duration::ZERO }
    }
}

/// The guest's timer ticks that last no less than this. Never 0, which means "none" to the guest.
fn ticks(time: Duration) -> u32 {
    // The timer's 65,536 periods of 1,193,182 a second. The first of them comes at any moment after boot.
    let periods = time.as_micros().saturating_mul(1_193_182) / 1_000_000;
    u32::try_from(periods.div_ceil(65_536) + 1).unwrap_or(u32::MAX)
}

/// What can be asked of a guest through its disk. It looks there once per beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestCommand {
    /// Nothing; takes [`GuestCommand::IgnorePowerButton`] and [`GuestCommand::PetWatchdog`] back.
    None,
    /// Hang: no beats, no reaction to the power button, while the VM is running.
    Hang,
    /// Reset itself: the boot count goes up, the VM's process stays.
    Reset,
    /// Power itself off, as a user does inside a guest.
    PowerOff,
    /// Ignore the power button from now on.
    IgnorePowerButton,
    /// Panic, through the pvpanic device.
    Panic,
    /// Arm the ib700 watchdog and pet it at every beat.
    PetWatchdog,
    /// Answer no more questions to its guest agent; taken back like [`GuestCommand::IgnorePowerButton`].
    SilenceAgent,
}

impl GuestCommand {
    fn byte(self) -> u8 {
        match self {
            GuestCommand::None => 0,
            GuestCommand::Hang => b'H',
            GuestCommand::Reset => b'R',
            GuestCommand::PowerOff => b'O',
            GuestCommand::IgnorePowerButton => b'I',
            GuestCommand::Panic => b'P',
            GuestCommand::PetWatchdog => b'W',
            GuestCommand::SilenceAgent => b'S',
        }
    }
}

/// What a guest has written about itself, read from its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestRecord {
    /// The VM's name.
    pub name: String,
    /// How often this disk was booted.
    pub boots: u32,
    /// Beats since the last boot.
    pub beats: u32,
    /// Which running copy wrote the record.
    pub nonce: u32,
    /// Power-offs that the guest carried out itself: by its power button or by command.
    pub offs: u32,
    /// Resets by command.
    pub resets: u32,
    /// Presses of the power button that it saw.
    pub buttons: u32,
    /// Disk errors that it saw.
    pub io_errors: u32,
    /// Answers that its guest agent gave since the last boot.
    pub agent_answers: u32,
    /// How often a copy noticed that another one writes the same disk. Anything but 0 is a broken promise.
    pub splits: u32,
}

impl GuestRecord {
    /// Boots and beats in one number that only grows while the guest runs.
    pub fn progress(&self) -> u64 {
        (u64::from(self.boots) << 32) | u64::from(self.beats)
    }
}

/// Assembles the guest's program.
pub(crate) fn assemble(dir: &Path) -> Result<Vec<u8>> {
    let (source, binary) = (dir.join("guest.asm"), dir.join("guest.bin"));
    fs::write(&source, SOURCE).at("write", &source)?;
    let argv = ["nasm", "-f", "bin", &source.display().to_string(), "-o", &binary.display().to_string()];
    run("assemble the guest (nasm comes with scripts/install-packages.sh)", &argv)?;
    fs::read(&binary).at("read", &binary)
}

/// Writes a VM's disk: `program` is [`assemble`]'s.
pub(crate) fn write_disk(
    path: &Path,
    program: &[u8],
    vm: &str,
    kind: GuestKind,
    agent: Option<GuestAgent>,
) -> Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(path).at("create", path)?;
    file.set_len(DISK_SIZE).at("resize", path)?;
    if let GuestKind::Beating { beat_ticks } = kind {
        let mut image = program.to_vec();
        let mut patch = |at: usize, number: u32| image[at..at + 4].copy_from_slice(&number.to_le_bytes());
        patch(BEAT_TICKS_AT, beat_ticks);
        if let Some(agent) = agent {
            patch(AGENT_TICKS_AT, ticks(agent.answers_after));
            patch(COMMAND_TICKS_AT, ticks(agent.commands_succeed_after));
        }
        let name = &mut image[NAME_AT..NAME_AT + NAME_SIZE];
        name.fill(0);
        // One byte of zero stays at the end.
        let length = vm.len().min(NAME_SIZE - 1);
        name[..length].copy_from_slice(&vm.as_bytes()[..length]);
        file.write_all_at(&image, 0).at("write", path)?;
    }
    file.sync_all().at("flush", path)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads a VM's record from its disk; an error if it has none yet.
pub(crate) fn read_record(path: &Path, vm: &str) -> Result<GuestRecord> {
    let file = fs::File::open(path).at("open", path)?;
    let mut b = [0u8; SECTOR as usize];
    file.read_exact_at(&mut b, RECORD_SECTOR * SECTOR).at("read", path)?;
    if number(&b, 0) != MAGIC {
        return Err(LabError::NoRecord { vm: vm.into(), path: path.into() });
    }
    let name = &b[32..64];
    let name = String::from_utf8_lossy(name.split(|c| *c == 0).next().unwrap_or_default()).into_owned();
    Ok(GuestRecord {
        name,
        boots: number(&b, 4),
        beats: number(&b, 8),
        nonce: number(&b, 12),
        offs: number(&b, 16),
        resets: number(&b, 20),
        buttons: number(&b, 24),
        io_errors: number(&b, 28),
        agent_answers: number(&b, 64),
        splits: read_splits(path)?,
    })
}

/// The sum of a disk's split counters.
pub(crate) fn read_splits(path: &Path) -> Result<u32> {
    let file = fs::File::open(path).at("open", path)?;
    let mut slots = vec![0u8; (SPLIT_SLOTS * SECTOR) as usize];
    file.read_exact_at(&mut slots, SPLIT_SECTOR * SECTOR).at("read", path)?;
    Ok(slots.chunks(SECTOR as usize).map(|s| number(s, 0)).fold(0, u32::saturating_add))
}

/// Leaves a command for the guest.
pub(crate) fn write_command(path: &Path, command: GuestCommand) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path).at("open", path)?;
    let mut sector = [0u8; SECTOR as usize];
    sector[0] = command.byte();
    file.write_all_at(&sector, COMMAND_SECTOR * SECTOR).at("write", path)?;
    file.sync_data().at("flush", path)
}

#[cfg(test)]
mod agent_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_last_no_less_than_what_was_asked_for() {
        assert_eq!(ticks(Duration::ZERO), 1);
        // 18.2 of them make a second, and one is lost at the beginning.
        assert_eq!(ticks(Duration::from_secs(1)), 20);
        assert_eq!(ticks(Duration::from_secs(10)), 184);
        assert_eq!(ticks(Duration::MAX), u32::MAX);
    }

    #[test]
    fn a_fresh_disk_boots_has_its_name_and_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let program = assemble(dir.path()).expect("needs nasm: run scripts/install-packages.sh");
        assert_eq!(program[510..512], [0x55, 0xaa]);
        let disk = dir.path().join("disk.raw");
        write_disk(&disk, &program, "vm1", GuestKind::default(), None).unwrap();
        let bytes = fs::read(&disk).unwrap();
        assert_eq!(&bytes[NAME_AT..NAME_AT + 4], b"vm1\0");
        assert_eq!(number(&bytes, BEAT_TICKS_AT), 4);
        assert_eq!(number(&bytes, AGENT_TICKS_AT), 0, "no agent unless it is asked for");
        assert_eq!(read_splits(&disk).unwrap(), 0);
        assert!(matches!(read_record(&disk, "vm1"), Err(LabError::NoRecord { .. })));
        // The program must not reach into what it writes at run time.
        assert!((program.len() as u64) < COMMAND_SECTOR * SECTOR);
    }

    #[test]
    fn an_overlong_name_is_cut_and_stays_terminated() {
        let dir = tempfile::tempdir().unwrap();
        let program = assemble(dir.path()).expect("needs nasm: run scripts/install-packages.sh");
        let disk = dir.path().join("disk.raw");
        write_disk(&disk, &program, &"x".repeat(50), GuestKind::default(), None).unwrap();
        assert_eq!(fs::read(&disk).unwrap()[NAME_AT + NAME_SIZE - 1], 0);
    }

    #[test]
    fn record_and_splits_are_read_from_where_the_program_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        write_disk(&disk, &[], "x", GuestKind::Dead, None).unwrap();
        let file = OpenOptions::new().write(true).open(&disk).unwrap();
        let mut record = Vec::new();
        for value in [MAGIC, 1, 2, 3, 4, 5, 6, 7] {
            record.extend(value.to_le_bytes());
        }
        record.extend(b"vm9\0");
        record.resize(64, 0);
        record.extend(8u32.to_le_bytes());
        file.write_all_at(&record, RECORD_SECTOR * SECTOR).unwrap();
        for slot in [0, 15] {
            file.write_all_at(&2u32.to_le_bytes(), (SPLIT_SECTOR + slot) * SECTOR).unwrap();
        }
        let r = read_record(&disk, "vm9").unwrap();
        assert_eq!((r.name.as_str(), r.boots, r.beats, r.splits), ("vm9", 1, 2, 4));
        assert_eq!((r.nonce, r.offs, r.resets, r.buttons, r.io_errors), (3, 4, 5, 6, 7));
        assert_eq!(r.agent_answers, 8);
        write_command(&disk, GuestCommand::Hang).unwrap();
        assert_eq!(fs::read(&disk).unwrap()[(COMMAND_SECTOR * SECTOR) as usize], b'H');
    }
}
