//! The golden cases: a picture in; placement, order, refusal or verdict out. The cases are in `cases/`, to be read by a person.

mod format;

use format::{Case, File};
use mainstay_placement::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// All cases of all files, with the file's name.
fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let cases: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        all.extend(cases.case.into_iter().map(|case| (file.clone(), case)));
    }
    all
}

/// Collects every difference, so that one run shows them all.
#[derive(Default)]
struct Differences(String);

impl Differences {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, got: &T) {
        if expected != got {
            writeln!(self.0, "  {what}\n    expected {expected:?}\n    got      {got:?}").unwrap();
        }
    }
}

fn check(case: &Case, differ: &mut Differences) {
    let picture = case.picture();
    let expect = &case.expect;
    if let Some(admit_by) = &case.admit {
        let control = admit_by.control();
        let verdict = match &case.propose {
            Some(_) => {
                admit_after(&picture, &case.proposal(&picture).expect("the proposal names a VM"), &control)
            }
            None => {
                let verdict = admit(&picture, &control);
                differ.same(
                    "the rehearsal's verdict",
                    &verdict,
                    &Rehearsal::new(picture.clone()).admit(&control),
                );
                verdict
            }
        };
        differ.same("verdict", expect.verdict.as_ref().expect("expect.verdict"), &verdict.to_string());
        return;
    }
    if let Some(text) = &expect.order_refused {
        let refusal = check_groups(&picture).map_err(|error| error.to_string());
        differ.same("order", &Err(text.clone()), &refusal);
        return;
    }
    let purpose = if case.planned { Purpose::Planned } else { Purpose::Failover };
    let made = plan(&picture, &case.fail, purpose);
    differ.same("breaches", &Vec::new(), &breaches(&picture, &made));
    if let [host] = &case.fail[..]
        && !case.planned
        && picture.hosts.contains_key(host)
    {
        differ.same(
            "the rehearsal's plan",
            &Some(made.clone()),
            &Rehearsal::new(picture.clone()).plan_for(host),
        );
    }
    check_plan(case, &made, differ);
    check_order(case, &picture, &made, differ);
}

fn check_plan(case: &Case, made: &Plan, differ: &mut Differences) {
    let Some(placed) = &case.expect.placed else { return };
    let got = made.placed.iter().map(|one| (one.vm.to_string(), one.host.to_string())).collect();
    differ.same("placed", placed, &got);
    let why = |one: &LeftOut| one.why.iter().map(|(host, why)| (host.to_string(), why.to_string())).collect();
    let got: BTreeMap<String, BTreeMap<String, String>> =
        made.left_out.iter().map(|one| (one.vm.to_string(), why(one))).collect();
    differ.same("left out", &case.expect.left_out, &got);
    let got: Vec<String> = made.not_restarted.iter().map(|(vm, why)| format!("{vm}: {why:?}")).collect();
    differ.same("not restarted", &case.expect.not_restarted, &got);
    if let Some(how) = &case.expect.how {
        let got = match made.how {
            How::Spread => "spread",
            How::PackedExactly => "packed-exactly",
            How::Packed => "packed",
        };
        differ.same("how", how, &got.to_string());
    }
}

fn check_order(case: &Case, picture: &Picture, made: &Plan, differ: &mut Differences) {
    let order = match StartPlan::new(picture, made) {
        Ok(order) => order,
        Err(error) => return differ.same("order", &String::new(), &error.to_string()),
    };
    if let Some(waves) = &case.expect.waves {
        let text = |wave: Vec<Name>| wave.iter().map(ToString::to_string).collect();
        let got: Vec<Vec<String>> = order.waves().into_iter().map(text).collect();
        differ.same("waves", waves, &got);
    }
    let Some(now) = case.now else { return };
    let next = order.next(&case.progress(), 0, now * 1000);
    let names = |names: Vec<&Name>| names.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    let expect = &case.expect;
    differ.same(
        "start",
        expect.start.as_ref().unwrap_or(&vec![]),
        &names(next.start.iter().map(|s| &s.vm).collect()),
    );
    let words = |one: &Waiting| one.because.iter().map(ToString::to_string).collect();
    let got = next.waiting.iter().map(|one| (one.vm.to_string(), words(one))).collect();
    differ.same("waiting", expect.waiting.as_ref().unwrap_or(&BTreeMap::new()), &got);
    differ.same(
        "given up on",
        expect.given_up_on.as_ref().unwrap_or(&vec![]),
        &names(next.given_up_on.iter().collect()),
    );
    differ.same("look again", &expect.look_again, &next.look_again.map(|ms| ms / 1000));
}

#[test]
fn every_case_comes_out_as_written() {
    let mut report = String::new();
    for (file, case) in cases() {
        let mut differ = Differences::default();
        check(&case, &mut differ);
        if !differ.0.is_empty() {
            writeln!(report, "{file}: {}\n{}", case.name, differ.0).unwrap();
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn there_are_at_least_eighty_cases_and_no_two_have_the_same_name() {
    let mut names: Vec<String> = cases().into_iter().map(|(_, case)| case.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 80, "{count} cases");
}

#[test]
fn an_unknown_key_is_refused() {
    let text = "[[case]]\nname = 'x'\nhosts = { a = { memory = 1, colour = 'red' } }\nexpect = {}\n";
    let error = toml::from_str::<File>(text).err().expect("refused").to_string();
    assert!(error.contains("colour"), "{error}");
}
