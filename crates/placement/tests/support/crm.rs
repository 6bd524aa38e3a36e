//! Pacemaker's `crm_simulate` as an independent oracle: a picture in its language, and its answer read back.
//!
//! Memory and CPU become utilization, must rules colocation and location constraints with infinite scores, start groups optional order
//! constraints, priorities priorities. Wishes, needs and devices have no counterpart here and must not be in the picture.

use mainstay_placement::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the program is there.
pub fn is_installed() -> bool {
    let run =
        Command::new("crm_simulate").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// What it answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// Where each VM runs in the end.
    pub at: BTreeMap<Name, Name>,
    /// Starts in their order.
    pub starts: Vec<Name>,
    /// It stopped or moved something.
    pub disturbed: bool,
}

fn pairs(vms: &[Name], picture: &Picture) -> Vec<(Name, Name)> {
    let vms: BTreeSet<&Name> = vms.iter().filter(|vm| picture.vms.contains_key(*vm)).collect();
    let vms: Vec<&Name> = vms.into_iter().collect();
    let pair = |(position, first): (usize, &&Name)| {
        let first = (*first).clone();
        vms[position + 1..].iter().map(|second| (first.clone(), (*second).clone())).collect::<Vec<_>>()
    };
    vms.iter().enumerate().flat_map(pair).collect()
}

fn constraints(picture: &Picture) -> String {
    let mut text = String::new();
    let mut id = 0;
    let mut add = |line: String| {
        id += 1;
        writeln!(text, "{}", line.replace("ID", &format!("c{id}"))).unwrap();
    };
    for rule in picture.rules.values() {
        assert_eq!(rule.strength, Strength::Must, "wishes have no counterpart");
        match &rule.kind {
            RuleKind::Apart { vms } => pairs(vms, picture).into_iter().for_each(|(a, b)| {
                add(format!("<rsc_colocation id='ID' rsc='{a}' with-rsc='{b}' score='-INFINITY'/>"));
            }),
            RuleKind::NotOnHosts { vms, hosts } => {
                for (vm, host) in vms.iter().flat_map(|vm| hosts.iter().map(move |host| (vm, host))) {
                    add(format!("<rsc_location id='ID' rsc='{vm}' node='{host}' score='-INFINITY'/>"));
                }
            }
            RuleKind::OnHosts { .. } | RuleKind::Together { .. } => panic!("not translated"),
        }
    }
    for group in picture.groups.values() {
        let before =
            group.waits_for.iter().filter_map(|other| picture.groups.get(other)).flat_map(|other| &other.vms);
        for (first, then) in before.flat_map(|first| group.vms.iter().map(move |then| (first, then))) {
            add(format!("<rsc_order id='ID' first='{first}' then='{then}' kind='Optional'/>"));
        }
    }
    text
}

/// The picture as a cluster information base, with VMs running where `at` says, and `failed` offline.
pub fn cib(picture: &Picture, at: &BTreeMap<Name, Name>, failed: Option<&Name>) -> String {
    let (mut nodes, mut resources, mut status) = (String::new(), String::new(), String::new());
    let utilization = |id: &str, amount: Resources| {
        let (cpu, memory) = (amount.cpu_mhz, amount.memory_mib);
        format!(
            "<utilization id='{id}-u'><nvpair id='{id}-c' name='cpu' value='{cpu}'/><nvpair id='{id}-m' name='memory' value='{memory}'/></utilization>"
        )
    };
    for (number, (name, host)) in picture.hosts.iter().enumerate() {
        let room = utilization(name, host.capacity.less(host.kept_back));
        writeln!(nodes, "<node id='{}' uname='{name}'>{room}</node>", number + 1).unwrap();
        let online = failed != Some(name);
        let (ccm, crmd, join) =
            if online { ("true", "online", "member") } else { ("false", "offline", "down") };
        let mut running = String::new();
        // The digest is that of no parameters: without it, it would restart everything.
        for vm in at.iter().filter(|(_, host)| *host == name).map(|(vm, _)| vm) {
            write!(
                running,
                "<lrm_resource id='{vm}' type='Dummy' class='ocf' provider='pacemaker'><lrm_rsc_op id='{vm}_last_0' operation='start' \
                 operation_key='{vm}_start_0' call-id='2' rc-code='0' op-status='0' interval='0' crm_feature_set='3.0.14' \
                 op-digest='f2317cad3d54cec5d7d7aa7d0bf35cf8' \
                 transition-key='1:0:0:0b5c5b5e-0000-4000-8000-000000000001' \
                 transition-magic='0:0;1:0:0:0b5c5b5e-0000-4000-8000-000000000001'/></lrm_resource>"
            )
            .unwrap();
        }
        writeln!(
            status,
            "<node_state id='{0}' uname='{name}' in_ccm='{ccm}' crmd='{crmd}' join='{join}' expected='{join}'><lrm id='{0}'>\
             <lrm_resources>{running}</lrm_resources></lrm></node_state>",
            number + 1
        )
        .unwrap();
    }
    for (name, vm) in &picture.vms {
        let priority = vm.priority as u32 * 10;
        let need = utilization(name, vm.demand());
        writeln!(
            resources,
            "<primitive id='{name}' class='ocf' provider='pacemaker' type='Dummy'><meta_attributes id='{name}-a'><nvpair id='{name}-p' \
             name='priority' value='{priority}'/><nvpair id='{name}-s' name='resource-stickiness' value='100000'/>\
             </meta_attributes>{need}</primitive>"
        )
        .unwrap();
    }
    let constraints = constraints(picture);
    format!(
        "<cib crm_feature_set='3.0.14' validate-with='pacemaker-3.0' epoch='1' num_updates='0' admin_epoch='0' have-quorum='1' \
         dc-uuid='2'><configuration><crm_config><cluster_property_set id='o'><nvpair id='o1' name='stonith-enabled' value='false'/>\
         <nvpair id='o2' name='placement-strategy' value='balanced'/><nvpair id='o3' name='no-quorum-policy' value='ignore'/>\
         <nvpair id='o4' name='enable-startup-probes' value='false'/>\
         </cluster_property_set></crm_config>\n<nodes>\n{nodes}</nodes>\n<resources>\n{resources}</resources>\n<constraints>\n\
         {constraints}</constraints></configuration>\n<status>\n{status}</status></cib>\n"
    )
}

/// Runs it on a file.
pub fn simulate(file: &Path) -> Answer {
    let output = Command::new("crm_simulate").arg("--simulate").arg("--xml-file").arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "crm_simulate: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    let mut answer = Answer::default();
    let mut part = "";
    for line in text.lines() {
        for title in [
            "Current cluster status",
            "Transition Summary",
            "Executing Cluster Transition",
            "Revised Cluster Status",
        ] {
            if line.starts_with(title) {
                part = title;
            }
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match (part, &words[..]) {
            ("Transition Summary", ["*", "Stop" | "Move" | "Recover" | "Restart", ..]) => {
                answer.disturbed = true
            }
            ("Executing Cluster Transition", ["*", "Resource", "action:", vm, "start", "on", _]) => {
                answer.starts.push((*vm).into());
            }
            ("Revised Cluster Status", ["*", vm, "(ocf:pacemaker:Dummy):", "Started", host]) => {
                answer.at.insert((*vm).into(), (*host).into());
            }
            _ => {}
        }
    }
    answer
}
