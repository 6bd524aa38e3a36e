//! What a real libvirt says that this host offers.

use mainstay_hypervisor::{Op, OpOutput, Spec};

use crate::real_world::inside;
use crate::suite::World;

const NETWORK: &str = "<network><name>lan7</name><forward mode='bridge'/><bridge name='br7'/></network>";

#[test]
fn real_host_offers_what_its_domains_need() {
    inside("offers::real_host_offers_what_its_domains_need", |world| {
        world.sh("ip link add br7 type bridge");
        let file = world.dir().join("network.xml");
        std::fs::write(&file, NETWORK).expect("written");
        world.virsh(&["net-define", file.to_str().expect("UTF-8")]);
        let ask = |id| {
            let result = world.news.run(world.handle(), id, Op::HostOffers);
            let Ok(OpOutput::HostOffers(offers)) = result else { panic!("{result:?}") };
            *offers
        };
        let before = ask(900);
        assert_eq!(before.networks, [""; 0], "an inactive network is not offered");
        assert_eq!(before.bridges, ["br7"]);
        assert!(before.cpu_mhz > 0);
        assert!(before.machine_types.contains(&"pc".to_owned()), "{:?}", before.machine_types);
        assert!(!before.cpu_models.is_empty(), "there is nothing that can't be a 486");
        world.virsh(&["net-start", "lan7"]);
        let after = ask(901);
        assert_eq!((after.networks, after.bridges), (vec!["lan7".into()], before.bridges));

        // What libvirt makes of a definition, which names an alias, is offered as well.
        let (_, xml) = world.xml("needs");
        let xml = xml.replace(
            "</devices>",
            "<interface type='network'><source network='lan7'/></interface></devices>",
        );
        let file = world.dir().join("domain.xml");
        std::fs::write(&file, xml).expect("written");
        world.virsh(&["define", file.to_str().expect("UTF-8")]);
        let spec: Spec = world.virsh(&["dumpxml", "needs"]).parse().expect("a domain");
        let needs = spec.needs();
        let machine = needs.machine.expect("libvirt writes it");
        assert!(machine.starts_with("pc-") && before.machine_types.contains(&machine), "{machine}");
        assert_eq!((needs.networks, needs.cpu_model), (vec!["lan7".to_owned()], None));
    });
}
