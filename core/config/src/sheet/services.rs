//! `service network INTERFACE` with its addresses and routes, as a network is set up beside the flows that need it.

use super::lexer::Token;
use super::{Entry, Item, Reader, at};
use crate::diagnostic::Code;
use crate::document::Misfit;
use crate::forms::quote;
use crate::written::{AddressText, At, InterfaceAddressText, InterfaceNameText, NetworkText, Route};

impl<'t> Reader<'t, '_> {
    /// A service: that of a network interface; others are not kept.
    pub(super) fn service(&mut self, first: &Token<'t>) {
        let Some(kind) = self.value(first, "the kind of service", "network eth0") else {
            return self.skip_to_item();
        };
        if kind.raw != "network" {
            let message =
                format!("there is no service {} here, and its lines are passed over", quote(kind.raw));
            let misfit = Misfit::new(Code::NotKept, &kind.span, message);
            self.misfit(misfit.help("allowed here: `service network INTERFACE`"));
            self.skip_to_item();
            return self.verbatim(first);
        }
        let Some(name) = self.value(&kind, "the interface", "eth0") else { return self.skip_to_item() };
        while let Some(token) = self.lexer.peek().filter(|token| !super::ITEMS.contains(&token.raw)).cloned()
        {
            self.lexer.next();
            if token.raw == "ip" {
                self.ip(&token, &name);
            } else {
                let message = format!("{} of a network is not kept", quote(token.raw));
                let misfit = Misfit::new(Code::NotKept, &token.span, message);
                self.misfit(
                    misfit.help("allowed here: `ip address ADDRESS/MASK`, `ip route NETWORK ROUTER`"),
                );
                self.skip_line();
            }
        }
        self.verbatim(first);
    }

    fn verbatim(&mut self, first: &Token<'t>) {
        let span = first.span.start..self.lexer.last_end();
        self.sheet.order.push(Entry { item: Item::Service, number: 0, span });
    }

    fn ip(&mut self, first: &Token<'t>, interface: &Token<'t>) {
        let Some(kind) = self.lexer.next() else { return };
        match kind.raw {
            "address" => {
                if let Some(value) = self.value(&kind, "the address", "192.0.2.1/24") {
                    let name = at(interface, |text| text);
                    self.sheet
                        .addresses
                        .push((name, at(&value, |text| InterfaceAddressText(with_length(&text)))));
                }
            }
            "route" => self.route(first, &kind, interface),
            _ => {
                self.unexpected(&kind, "nothing of an interface is", &["address", "route"]);
                self.skip_line();
            }
        }
    }

    /// `ip route default|NETWORK [via] ROUTER [table ID]`.
    fn route(&mut self, first: &Token<'t>, kind: &Token<'t>, interface: &Token<'t>) {
        let Some(to) = self.value(kind, "the destination", "default 192.0.2.254 table 200") else { return };
        let mut route = Route { interface: Some(at(interface, InterfaceNameText)), ..Route::default() };
        while let Some(token) = self.lexer.next_on_line() {
            match token.raw {
                "via" => {}
                "table" => {
                    let Some(value) = self.value(&token, "the number of the table", "200") else { break };
                    match value.raw.parse::<u32>() {
                        Ok(number) if number > 0 => {
                            route.table = Some(At { span: value.span, value: i64::from(number) });
                        }
                        _ => {
                            let message =
                                format!("{} is not the number of a routing table", quote(value.raw));
                            let misfit = Misfit::new(Code::OutOfRange, &value.span, message);
                            self.misfit(misfit.help("write a number from 1 to 4294967295"));
                        }
                    }
                }
                _ if route.via.is_none() => route.via = Some(at(&token, AddressText)),
                _ => {
                    self.unexpected(&token, "a route has no", &["table"]);
                    self.skip_line();
                }
            }
        }
        let is_six = route.via.as_ref().is_some_and(|via| via.value.0.contains(':'));
        let everywhere = if is_six { "::/0" } else { "0.0.0.0/0" };
        route.to =
            Some(at(&to, |text| NetworkText(if text == "default" { everywhere.to_owned() } else { text })));
        self.sheet.routes.push(At { span: first.span.start..self.lexer.last_end(), value: route });
    }
}

/// An address with the length of its network where it has a mask.
fn with_length(text: &str) -> String {
    let length = text.split_once('/').and_then(|(address, mask)| {
        let length = crate::addresses::netmask(mask).ok()?;
        Some(format!("{address}/{length}"))
    });
    length.unwrap_or_else(|| text.to_owned())
}
