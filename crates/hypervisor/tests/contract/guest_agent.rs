//! Guests' agents, asked by way of a real libvirt and a real QEMU.
//!
//! No guest here is large enough for an agent. So the agent is a thread of the test. The domain's channel is made to be a second
//! serial line, which libvirt does not notice; the guest copies between it and the first one; and the test sits on the first.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mainstay_hypervisor::{
    DomainState, DomainUuid, GuestAnswer, GuestExit, HostOffers, Op, OpError, OpOutput,
};
use mainstay_testkit::wait_until;

use crate::fake_world::FakeWorld;
use crate::real_world::{RealWorld, inside};
use crate::suite::{self, World};

/// Copies each byte that comes in on one serial line to the other, both ways.
const RELAY: [u8; 49] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // cli; xor ax,ax; mov ss,ax; mov sp,0x7c00
    0xbb, 0xf8, 0x02, 0xb9, 0xf8, 0x03, // mov bx,0x2f8; mov cx,0x3f8
    0xe8, 0x07, 0x00, 0x87, 0xd9, // call relay; xchg bx,cx
    0xe8, 0x02, 0x00, 0xeb, 0xf6, // call relay; jmp back to the first call
    0x8d, 0x57, 0x05, 0xec, 0xa8, 0x01, 0x74,
    0x10, // relay: lea dx,[bx+5]; in al,dx; test al,1; jz done
    0x89, 0xca, 0x83, 0xc2, 0x05, // mov dx,cx; add dx,5
    0xec, 0xa8, 0x20, 0x74, 0xfb, // wait: in al,dx; test al,0x20; jz wait
    0x89, 0xda, 0xec, 0x89, 0xca, 0xee, // mov dx,bx; in al,dx; mov dx,cx; out dx,al
    0xc3, // done: ret
];

/// What the channel's device is turned into: a second serial line.
const OVERRIDE: &str = "<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:device alias='channel0'><qemu:frontend>
    <qemu:property name='driver' type='string' value='isa-serial'/><qemu:property name='index' type='unsigned' value='1'/>
    <qemu:property name='bus' type='remove'/><qemu:property name='nr' type='remove'/><qemu:property name='name' type='remove'/>
    </qemu:frontend></qemu:device></qemu:override></domain>";

const CHANNEL: &str =
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>";

/// An agent that runs no command, but says that it did. Ending its thread is not needed: the namespace ends with the test.
struct Agent {
    mute: Arc<Mutex<bool>>,
    asked: Arc<Mutex<Vec<String>>>,
}

fn reply(line: &str) -> String {
    let number = |name: &str| {
        let digits = line.split(&format!("\"{name}\":")).nth(1).unwrap_or_default().trim_start();
        digits.chars().take_while(char::is_ascii_digit).collect::<String>()
    };
    if line.contains("\"guest-sync") {
        return format!("{{\"return\": {}}}", number("id"));
    }
    if line.contains("\"guest-exec-status\"") {
        let status = match number("pid").as_str() {
            "1" => "\"exited\": true, \"exitcode\": 0",
            "2" => "\"exited\": true, \"exitcode\": 3",
            "3" => "\"exited\": true, \"signal\": 9",
            _ => "\"exited\": false",
        };
        return format!("{{\"return\": {{{status}}}}}");
    }
    if line.contains("\"guest-exec\"") {
        let known = ["/bin/true", "/bin/false", "/bin/crash", "/bin/sleep"];
        return match known.iter().position(|path| line.contains(path)) {
            Some(place) => format!("{{\"return\": {{\"pid\": {}}}}}", place + 1),
            None => "{\"error\": {\"class\": \"GenericError\", \"desc\": \"No such file\"}}".into(),
        };
    }
    "{\"return\": {}}".into()
}

impl Agent {
    fn start(socket: &str) -> Agent {
        let agent = Agent { mute: Arc::default(), asked: Arc::default() };
        let (mute, asked) = (Arc::clone(&agent.mute), Arc::clone(&agent.asked));
        let mut answers = UnixStream::connect(socket).expect("QEMU listens");
        let questions = BufReader::new(answers.try_clone().expect("a socket"));
        std::thread::spawn(move || {
            for line in questions.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                asked.lock().expect("not poisoned").push(line.clone());
                if !*mute.lock().expect("not poisoned") {
                    let _ = writeln!(answers, "{}", reply(&line));
                }
            }
        });
        agent
    }
}

fn start(world: &RealWorld, name: &str) -> (DomainUuid, Agent) {
    let (uuid, xml) = world.xml_of(name, &RELAY);
    let socket = world.dir().join(format!("{name}.sock"));
    let socket = socket.to_str().expect("UTF-8");
    let serial =
        xml.split("<serial").nth(1).and_then(|rest| rest.split("</serial>").next()).expect("a serial line");
    let xml = xml
        .replace(
            &format!("<serial{serial}</serial>"),
            &format!("<serial type='unix'><source mode='bind' path='{socket}'/></serial>"),
        )
        .replace("</devices>", CHANNEL)
        .replace("</domain>", OVERRIDE);
    let result = world.news.run(world.handle(), 800, Op::StartPaused { xml });
    assert!(matches!(result, Ok(OpOutput::Started { .. })), "{result:?}");
    let agent = Agent::start(socket);
    let mark = world.news.mark();
    assert_eq!(world.news.run(world.handle(), 801, Op::Resume { uuid }), Ok(OpOutput::Done));
    world.news.wait_domain("running", mark, uuid, |domain| domain.state == DomainState::Running);
    (uuid, agent)
}

fn ping(world: &RealWorld, id: u64, uuid: DomainUuid) -> GuestAnswer {
    match world.news.run(world.handle(), id, Op::GuestPing { uuid }) {
        Ok(OpOutput::Guest(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// While it boots, it is silent.
fn wait_for_the_agent(world: &RealWorld, uuid: DomainUuid) {
    let mut id = 1000;
    wait_until("the agent's answer", || {
        id += 1;
        ping(world, id, uuid) == GuestAnswer::Answers
    });
}

#[test]
fn real_guest_agent_answers_and_runs_commands() {
    inside("guest_agent::real_guest_agent_answers_and_runs_commands", |world| {
        let (uuid, agent) = start(world, "talks");
        wait_for_the_agent(world, uuid);
        let run = |id, path: &str, timeout| {
            let args = vec!["a \"b\" c".to_owned()];
            world.news.run(world.handle(), id, Op::GuestCommand { uuid, path: path.into(), args, timeout })
        };
        let patient = Duration::from_secs(30);
        assert_eq!(run(2000, "/bin/true", patient), Ok(OpOutput::GuestEnded(GuestExit::Code(0))));
        assert_eq!(run(2001, "/bin/false", patient), Ok(OpOutput::GuestEnded(GuestExit::Code(3))));
        assert_eq!(run(2002, "/bin/crash", patient), Ok(OpOutput::GuestEnded(GuestExit::Signal(9))));
        let short = Duration::from_millis(300);
        assert_eq!(run(2003, "/bin/sleep", short), Ok(OpOutput::GuestEnded(GuestExit::StillRuns)));
        let refused = run(2004, "/bin/missing", patient);
        assert!(
            matches!(&refused, Err(OpError::GuestRefused { message }) if message.contains("No such file")),
            "{refused:?}"
        );
        let asked = agent.asked.lock().expect("not poisoned").join("\n");
        assert!(asked.contains(r#""a \"b\" c""#), "arguments arrive as they are: {asked}");
    });
}

#[test]
fn real_silent_guest_agent_is_told_in_time_and_holds_nobody_up() {
    inside("guest_agent::real_silent_guest_agent_is_told_in_time_and_holds_nobody_up", |world| {
        let (uuid, agent) = start(world, "silent");
        let other = suite::running(world, "other");
        wait_for_the_agent(world, uuid);
        *agent.mute.lock().expect("not poisoned") = true;
        let mark = world.news.mark();
        let begun = Instant::now();
        world.handle().submit(3000, Op::GuestPing { uuid });
        // Neither the other VM nor this one waits for the guest.
        assert_eq!(world.news.run(world.handle(), 3001, Op::Suspend { uuid: other }), Ok(OpOutput::Done));
        assert_eq!(world.news.run(world.handle(), 3002, Op::Suspend { uuid }), Ok(OpOutput::Done));
        assert_eq!(world.news.run(world.handle(), 3003, Op::Resume { uuid }), Ok(OpOutput::Done));
        let told = world.news.wait("the silence", mark, |event| match event {
            mainstay_hypervisor::Event::Done { id: 3000, result } => Some(result.clone()),
            _ => None,
        });
        assert_eq!(told, Ok(OpOutput::Guest(GuestAnswer::Silent)));
        // Its limit is 2 s, and libvirt has none of its own; the rest is for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        // A second question waits for the end of the first one's call, and is answered all the same.
        assert_eq!(ping(world, 3004, uuid), GuestAnswer::Silent);
        assert_eq!(world.news.run(world.handle(), 3005, Op::Destroy { uuid }), Ok(OpOutput::Done));
    });
}

#[test]
fn fake_guest_answers_as_it_is_told_to() {
    let world = FakeWorld::new();
    let (uuid, xml) = world.xml("talks");
    let with_channel = xml.replace("</devices>", CHANNEL);
    assert_eq!(world.fake.user_defines(&with_channel), Ok(uuid));
    world.fake.user_starts(uuid).expect("nothing hinders it");
    let ping = |id| world.news.run(&world.fake, id, Op::GuestPing { uuid });
    let run = |id| {
        let (path, timeout) = ("/bin/true".into(), Duration::from_secs(1));
        world.news.run(&world.fake, id, Op::GuestCommand { uuid, path, args: vec![], timeout })
    };
    assert_eq!(ping(1), Ok(OpOutput::Guest(GuestAnswer::Answers)));
    assert_eq!(run(2), Ok(OpOutput::GuestEnded(GuestExit::Code(0))));
    world.fake.guest_commands_end(uuid, GuestExit::Code(1));
    assert_eq!(run(3), Ok(OpOutput::GuestEnded(GuestExit::Code(1))));
    world.fake.guest_answers(uuid, GuestAnswer::Silent);
    assert_eq!(ping(4), Ok(OpOutput::Guest(GuestAnswer::Silent)));
    assert!(matches!(run(5), Err(OpError::NoGuestAgent { .. })));

    let offers = HostOffers { networks: vec!["lan".into()], cpu_mhz: 8000, ..HostOffers::default() };
    world.fake.host_offers(offers.clone());
    let told = world.news.run(&world.fake, 6, Op::HostOffers);
    assert_eq!(told, Ok(OpOutput::HostOffers(Box::new(offers))));
}
