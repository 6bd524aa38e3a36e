//! `mainstay replay`: an agent's flight recording through the core of this build, step by step.
//!
//! It is also a proof: where a segment ends, the replayed core must be the one that the agent recorded at the beginning of the
//! next. Where it is not, the core is not deterministic, or this is another version of it; the first difference is named.

mod about;
mod lines;

use crate::args::{Moment, ReplayArgs};
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::style::Tone;
use crate::words::clean;
use about::About;
use lines::Known;
use mainstay_core::{Core, Effect, Input, Span, Time};
use mainstay_recorder::{
    End, Header, Segment, Step, divergence, must_agree, read_header, read_segment, segments_of,
};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The replayed end of a segment.
struct Ended {
    segment: Segment,
    core: Core,
}

/// A replay under way.
struct Replay<'a, 'o> {
    args: &'a ReplayArgs,
    output: &'a mut Output<'o>,
    about: About,
    known: Known,
    /// The time of the first step of the recording.
    zero: Option<Time>,
    steps: u64,
    agreed: u64,
    /// Divergences, damage, and assertions of the core.
    findings: u64,
}

/// Runs the recording. The exit code is 1 when it does not lead where it led the agent, or is damaged.
pub fn run(args: &ReplayArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let refused = |error: mainstay_recorder::ReadError| Failure::Refused(error.to_string());
    let paths = segments_of(&args.path).map_err(refused)?;
    let zero = paths.iter().find_map(|path| read_header(path).ok()).map(|header| header.at);
    let about = About::new(args.vm.as_deref(), args.host.as_deref());
    let mut replay =
        Replay { args, output, about, known: Known::default(), zero, steps: 0, agreed: 0, findings: 0 };
    let wanted = replay.without_those_before(paths);
    let mut usable = 0;
    let mut former = None;
    for path in &wanted {
        match read_segment(path) {
            Ok(segment) => {
                usable += 1;
                former = replay.segment(path, segment, former)?;
            }
            Err(error) if wanted.len() == 1 => return Err(refused(error)),
            Err(error) => {
                replay.finding(path, &error.to_string())?;
                former = None;
            }
        }
    }
    replay.end(usable)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| clean(&name.to_string_lossy()))
}

impl Replay<'_, '_> {
    fn boot_time(&self, moment: Moment) -> Time {
        match moment {
            Moment::Boot(time) => time,
            Moment::After(span) => self.zero.unwrap_or_default() + span,
        }
    }

    /// Leaves out segments that end before `--from`: the next one continues them and begins before it.
    fn without_those_before(&self, paths: Vec<PathBuf>) -> Vec<PathBuf> {
        let Some(from) = self.args.from.map(|moment| self.boot_time(moment)) else { return paths };
        let headers: Vec<Option<Header>> = paths.iter().map(|path| read_header(path).ok()).collect();
        let superseded = |index: usize| {
            let next = headers.get(index + 1).and_then(Option::as_ref);
            next.is_some_and(|next| next.continues.is_some() && next.at <= from)
        };
        paths.into_iter().enumerate().filter(|(index, _)| !superseded(*index)).map(|(_, path)| path).collect()
    }

    fn segment(
        &mut self,
        path: &Path,
        segment: Segment,
        former: Option<Ended>,
    ) -> Result<Option<Ended>, Failure> {
        self.head(path, &segment.header)?;
        if let Some(former) = former
            && must_agree(&former.segment, &segment.header)
        {
            self.verify(path, &former.core, &segment.checkpoint.core)?;
        }
        // From the recorded core also after a divergence: what follows is worth seeing all the same.
        let mut core = segment.checkpoint.core.clone();
        self.known.learn_view(&core.view(segment.checkpoint.at));
        let to = self.args.to.map(|moment| self.boot_time(moment));
        for step in &segment.steps {
            if to.is_some_and(|to| step.at > to) {
                return Ok(None);
            }
            if !self.step(path, &segment.header, &mut core, step)? {
                return Ok(None);
            }
        }
        match &segment.end {
            End::Whole => {}
            End::Broken { reason } => self.note(path, &format!("steps are missing from here on: {}", clean(reason)))?,
            End::Torn { offset } => self.note(
                path,
                &format!("ends in the middle of a step at byte {offset}: agent or host died, or it is still being written"),
            )?,
            End::Damaged { offset, reason } => {
                self.finding(path, &format!("damaged at byte {offset} ({reason}); going on with the next segment"))?;
            }
        }
        Ok(Some(Ended { segment, core }))
    }

    /// Takes a step and shows it. Tells whether the core could take it.
    fn step(&mut self, path: &Path, header: &Header, core: &mut Core, step: &Step) -> Result<bool, Failure> {
        let mut effects = Vec::new();
        let taken = catch_unwind(AssertUnwindSafe(|| core.step(step.at, step.input.clone(), &mut effects)));
        self.steps += 1;
        self.known.learn_input(&step.input);
        effects.iter().for_each(|effect| self.known.learn_effect(effect));
        let admitted = self.about.admits(&header.config.me, &step.input, &effects, &self.known);
        let early = self.args.from.is_some_and(|from| step.at < self.boot_time(from));
        if (admitted && !early) || taken.is_err() {
            self.show(header, step, &effects)?;
        }
        self.known.forget(&step.input);
        if taken.is_err() {
            self.finding(path, "an assertion of the core fails at this step, as told above")?;
        }
        Ok(taken.is_ok())
    }

    fn show(&mut self, header: &Header, step: &Step, effects: &[Effect]) -> Result<(), Failure> {
        let since = step.at.since(self.zero.unwrap_or(step.at));
        if self.output.json {
            let lines = effects.iter().filter_map(|effect| self.known.effect(effect, true));
            let value = json!({
                "at_us": step.at.0,
                "since_us": since.0,
                "at_unix_us": header.at_unix_us + step.at.since(header.at).0,
                "host": header.config.me,
                "text": self.known.input(&step.input),
                "effect_texts": lines.collect::<Vec<_>>(),
                "input": step.input,
                "effects": effects,
            });
            return self.output.text(&format!("{value}\n"));
        }
        let input = self.known.input(&step.input);
        let tone = if step.input == Input::Tick { Tone::Faint } else { Tone::Plain };
        let mut text = format!(
            "{:>14}  {:>12}  {}\n",
            seconds(Span(step.at.0)),
            format!("+{}", seconds(since)),
            self.output.style.paint(tone, &input)
        );
        for effect in effects {
            if let Some(line) = self.known.effect(effect, self.args.verbose) {
                text += &format!("{:>28}    -> {line}\n", "");
            }
        }
        self.output.text(&text)
    }

    fn head(&mut self, path: &Path, header: &Header) -> Result<(), Failure> {
        let time = self.output.style.zone.show(header.at_unix_us);
        let lost = match header.lost_before {
            0 => String::new(),
            lost => format!("; {lost} steps before it are missing"),
        };
        let (host, software) = (clean(header.config.me.as_str()), clean(&header.software));
        let run = header.config.incarnation.0;
        self.note(path, &format!("{host}, mainstay {software}, run {run:016x}, from {time}{lost}"))?;
        let mine = env!("CARGO_PKG_VERSION");
        if header.software != mine {
            self.output.message(&format!(
                "warning: recorded by mainstay {software}, replayed by {mine}: where they decide differently, so will the replay"
            ));
        }
        Ok(())
    }

    fn verify(&mut self, path: &Path, replayed: &Core, recorded: &Core) -> Result<(), Failure> {
        match divergence(replayed, recorded) {
            None => {
                self.agreed += 1;
                self.note(path, "replay agrees with the checkpoint")
            }
            Some(difference) => {
                self.finding(path, &format!("replay diverges from the checkpoint: {}", clean(&difference)))
            }
        }
    }

    fn note(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        self.line("note", Tone::Faint, path, text)
    }

    fn finding(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        self.findings += 1;
        self.line("finding", Tone::Alarm, path, text)
    }

    fn line(&mut self, kind: &str, tone: Tone, path: &Path, text: &str) -> Result<(), Failure> {
        let name = name_of(path);
        if self.output.json {
            return self.output.text(&format!("{}\n", json!({ "segment": name, kind: text })));
        }
        let text = self.output.style.paint(tone, text);
        self.output.text(&format!("{name}: {text}\n"))
    }

    fn end(self, segments: usize) -> Result<Exit, Failure> {
        let summary = format!(
            "{} steps of {segments} segments replayed; {} checkpoints agree, {} findings",
            self.steps, self.agreed, self.findings
        );
        self.output.message(&summary);
        Ok(if self.findings == 0 { Exit::Ok } else { Exit::Failed })
    }
}

/// A time in seconds, such as `812.500000`.
fn seconds(span: Span) -> String {
    format!("{}.{:06}", span.0 / 1_000_000, span.0 % 1_000_000)
}
