//! ALOHA's text: its flows, outflows and directors are read as any text of rules; the interfaces that they name are
//! declared.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::diagnostic::Diagnostics;
use crate::rules;
use crate::sheet::Sheet;
use crate::sheet::tables::{key, tables, text};

pub(super) fn import(source: &str, name: &str) -> Result<(String, Diagnostics), Diagnostics> {
    let (sheet, found) = rules::read(source, name)?;
    let mut out =
        String::from("# As there, answers leave as the routes say.\n[handling]\nroute_replies = true\n");
    let interfaces = interfaces(&sheet);
    if interfaces.is_empty() {
        out.push_str("\n[interface.tun0]\nkind = \"tun\"\n");
    }
    for (interface, addresses) in interfaces {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "\n[interface.{}]\nkind = \"ethernet\"", key(interface));
        if !addresses.is_empty() {
            let list: Vec<_> = addresses.into_iter().map(text).collect();
            let _ = writeln!(out, "address = [{}]", list.join(", "));
        }
    }
    out.push('\n');
    out.push_str(&tables(&sheet));
    Ok((out, found))
}

/// The interfaces that the text names, with their addresses.
fn interfaces(sheet: &Sheet) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, address) in &sheet.addresses {
        all.entry(&name.value).or_default().push(&address.value.0);
    }
    for route in &sheet.routes {
        if let Some(interface) = &route.value.interface {
            all.entry(&interface.value.0).or_default();
        }
    }
    for flow in sheet.flows.iter().chain(&sheet.outflows) {
        for rule in flow.value.rule.as_ref().map_or(&[][..], |rules| &rules.value) {
            let conditions = rule.value.r#match.as_ref().or(rule.value.ignore.as_ref());
            let named = conditions.into_iter().flat_map(|conditions| {
                let not = conditions.value.not.as_ref().and_then(|not| not.value.iface.as_ref());
                conditions.value.iface.as_ref().into_iter().chain(not)
            });
            for interface in named {
                all.entry(&interface.value.0).or_default();
            }
        }
    }
    all
}
