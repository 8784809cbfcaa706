//! The interfaces of a plan, opened: TUNs are made, Ethernet interfaces must be there.
//!
//! In: a plan. Out: open interfaces in its order, and the plan with the MAC addresses that they have. No address, route
//! or link is set here.

use evenkeel_config::Setup as Who;
use evenkeel_engine::Plan;
use evenkeel_engine::plan::{InterfacePlan, Layer, Mode};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_io::{DeviceError, Ethernet, EthernetOptions, Port, Tun, TunOptions};

/// Opens the interfaces of the plan, in its order, and fills in its MAC addresses. Where packets may be wrapped they
/// are taken in whole and with their checksums: a device cuts super-packets by their own headers, not by those inside.
///
/// # Errors
/// When an interface can not be opened.
pub(crate) fn open(plan: &mut Plan, who: Who) -> Result<Vec<Port>, DeviceError> {
    let takes_whole = has_tunnel(plan);
    let open_one = |interface: &InterfacePlan| match interface.layer {
        Layer::Ip => open_tun(interface, who, takes_whole).map(Port::from),
        Layer::Ethernet(mac) => open_ethernet(interface, mac, takes_whole).map(Port::from),
    };
    let ports = plan.interfaces.iter().map(open_one).collect::<Result<Vec<Port>, _>>()?;
    fill_in_macs(plan, &macs(&ports));
    Ok(ports)
}

fn open_tun(interface: &InterfacePlan, who: Who, takes_whole: bool) -> Result<Tun, DeviceError> {
    let mut options = TunOptions::new(&interface.name);
    options.has_offloads = !takes_whole;
    options.mtu_bytes = match who {
        Who::Auto => Some(interface.mtu_bytes),
        Who::Manual => None,
    };
    Tun::open(&options)
}

fn open_ethernet(
    interface: &InterfacePlan,
    mac: MacAddress,
    takes_whole: bool,
) -> Result<Ethernet, DeviceError> {
    Ethernet::open(&EthernetOptions {
        mac: (mac != MacAddress::UNSPECIFIED).then_some(mac),
        // What is passed on is for others.
        is_promiscuous: interface.passes_to.is_some(),
        has_offloads: !takes_whole,
        mtu_bytes: Some(interface.mtu_bytes),
        ..EthernetOptions::new(&interface.name)
    })
}

/// The MAC address of each interface that has one.
pub(crate) fn macs(ports: &[Port]) -> Vec<Option<MacAddress>> {
    let mac = |port: &Port| match port {
        Port::Ethernet(ethernet) => Some(ethernet.mac()),
        Port::Tun(_) => None,
    };
    ports.iter().map(mac).collect()
}

/// Gives the interfaces of `plan` without a MAC address those of the open ones.
pub(crate) fn fill_in_macs(plan: &mut Plan, macs: &[Option<MacAddress>]) {
    plan.fill_in_macs(|number| macs.get(number).copied().flatten().unwrap_or(MacAddress::UNSPECIFIED));
}

/// Whether packets of `plan` may be wrapped, which super-packets can not be.
pub(crate) fn has_tunnel(plan: &Plan) -> bool {
    plan.directors.iter().any(|director| matches!(director.mode, Mode::Tunnel { .. }))
}

/// What of `new` differs from `old` in a way that open interfaces can not follow, in a sentence.
pub(crate) fn difference(old: &Plan, new: &Plan) -> Option<String> {
    let names = |plan: &Plan| -> Vec<String> {
        plan.interfaces.iter().map(|interface| interface.name.clone()).collect()
    };
    let (before, after) = (names(old), names(new));
    if before != after {
        let (before, after) = (before.join(", "), after.join(", "));
        return Some(format!(
            "the interfaces change from {before} to {after}; restart the forwarder for that"
        ));
    }
    for (before, after) in old.interfaces.iter().zip(&new.interfaces) {
        let name = &before.name;
        let what = match (before.layer, after.layer) {
            (Layer::Ip, Layer::Ip) => None,
            (Layer::Ethernet(one), Layer::Ethernet(two)) if one != two => Some("MAC address"),
            (Layer::Ethernet(_), Layer::Ethernet(_))
                if before.passes_to.is_none() && after.passes_to.is_some() =>
            {
                Some("`pass_to`, which takes frames to others")
            }
            (Layer::Ethernet(_), Layer::Ethernet(_)) => None,
            (Layer::Ip, Layer::Ethernet(_)) | (Layer::Ethernet(_), Layer::Ip) => Some("kind"),
        };
        if let Some(what) = what {
            return Some(format!("the interface {name} has another {what}; restart the forwarder for that"));
        }
    }
    (has_tunnel(new) && !has_tunnel(old)).then(|| {
        "the first director in the mode tunnel needs interfaces without offloads; restart the forwarder for that"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(layers: &[Layer]) -> Plan {
        let names = ["one", "two"];
        let interfaces = names.iter().zip(layers).map(|(name, layer)| InterfacePlan::new(name, *layer));
        Plan { interfaces: interfaces.collect(), ..Plan::empty() }
    }

    const OWN: Layer = Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1]));
    const OTHER: Layer = Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 2]));

    #[test]
    fn what_open_interfaces_can_not_follow_is_named() {
        let same = |old: &Plan, new: &Plan| difference(old, new).is_none();
        assert!(same(&plan(&[OWN, Layer::Ip]), &plan(&[OWN, Layer::Ip])));
        for (new, word) in [
            (plan(&[OWN]), "from one, two to one"),
            (plan(&[OTHER, Layer::Ip]), "interface one has another MAC address"),
            (plan(&[OWN, OWN]), "interface two has another kind"),
        ] {
            let said = difference(&plan(&[OWN, Layer::Ip]), &new).unwrap();
            assert!(said.contains(word), "{said}");
        }
        let mut passing = plan(&[OWN, OTHER]);
        passing.interfaces[0].passes_to = Some(evenkeel_engine::InterfaceId(1));
        assert!(difference(&plan(&[OWN, OTHER]), &passing).unwrap().contains("pass_to"));
        assert!(same(&passing, &plan(&[OWN, OTHER])), "frames to others that come are dropped");
    }

    #[test]
    fn only_an_interface_without_a_mac_address_gets_that_of_its_device() {
        let mut wanted = plan(&[Layer::Ethernet(MacAddress::UNSPECIFIED), OTHER]);
        fill_in_macs(&mut wanted, &[Some(MacAddress([2, 0, 0, 0, 0, 1])), Some(MacAddress([9; 6]))]);
        assert_eq!(wanted, plan(&[OWN, OTHER]));
    }
}
