//! `director NAME [ADDRESS[:PORT] [TCP|UDP]]` and the lines below it.

use super::lexer::Token;
use super::{Entry, Item, Reader, at};
use crate::addresses;
use crate::diagnostic::Code;
use crate::document::Misfit;
use crate::forms::quote;
use crate::written::{
    At, BindText, BuiltinText, Director, DurationText, EndpointText, Key, ModeText, NameText, Netmask,
    NetmaskText, OneOrMany, Persistence, SchedulerTable, Server, Stickiness, TextOrTable,
};

const LINES: [&str; 5] = ["balance", "mode", "check", "option", "server"];

/// How new flows are shared out: the words behind `balance`, and the scheduler.
const BALANCES: [(&str, &str); 7] = [
    ("roundrobin", "wrr"),
    ("leastconn", "wlc"),
    ("source", "sh"),
    ("srcdst", "maglev"),
    ("dest", "dh"),
    ("shortestexpected", "sed"),
    ("neverqueue", "nq"),
];

const NO_CHECKS: &str =
    "real servers are not checked yet: each counts as usable; set its weight with `evenkeel ctl weight`";

impl<'t> Reader<'t, '_> {
    pub(super) fn director(&mut self, first: &Token<'t>) {
        let Some(name) = self.value(first, "the name", "NAME 10.0.0.3:80 TCP") else {
            return self.skip_to_item();
        };
        let mut director = Director { bind: self.bind(), ..Director::default() };
        let mut servers = Vec::new();
        while let Some(token) = self.lexer.peek().cloned() {
            if token.is_first && super::ITEMS.contains(&token.raw) {
                break;
            }
            self.lexer.next();
            match token.raw {
                "balance" => self.balance(&token, &mut director),
                "mode" => {
                    director.mode = self.value(&token, "the mode", "nat").map(|value| at(&value, ModeText));
                    self.end_line("behind the mode");
                }
                "check" => self.not_checked(&token),
                "option" => self.option(&token, &mut director),
                "server" => servers.extend(self.server(&token)),
                _ => {
                    self.unexpected(&token, "no line of a director begins with", &LINES);
                    self.skip_line();
                }
            }
        }
        let span = first.span.start..self.lexer.last_end();
        if !servers.is_empty() {
            director.server = Some(At { span: span.clone(), value: servers });
        }
        self.sheet.order.push(Entry {
            item: Item::Director,
            number: self.sheet.directors.len(),
            span: span.clone(),
        });
        self.sheet.directors.push((at(&name, |text| text), At { span, value: director }));
    }

    /// The address, port and protocol behind the name.
    fn bind(&mut self) -> Option<At<OneOrMany<BindText>>> {
        let place = self.lexer.next_on_line()?;
        let protocol = self.lexer.next_on_line();
        let suffix = match protocol.as_ref().map(|token| token.raw) {
            None => "tcp",
            Some(word) if word.eq_ignore_ascii_case("tcp") => "tcp",
            Some(word) if word.eq_ignore_ascii_case("udp") => "udp",
            Some(_) => {
                if let Some(token) = &protocol {
                    self.unexpected(token, "no director serves", &["TCP", "UDP"]);
                }
                "tcp"
            }
        };
        self.end_line("behind the protocol");
        let text = match addresses::endpoint(place.raw) {
            Ok((address, 0)) if protocol.is_none() => format!("{}:*", addresses::in_brackets(address)),
            Ok((address, 0)) => format!("{}:*/{suffix}", addresses::in_brackets(address)),
            Ok(_) | Err(_) => format!("{}/{suffix}", place.raw),
        };
        let span = place.span.start..protocol.map_or(place.span.end, |token| token.span.end);
        Some(At { span, value: OneOrMany::One(BindText(text)) })
    }

    fn balance(&mut self, first: &Token<'t>, director: &mut Director) {
        let Some(word) = self.value(first, "how flows are shared out", "leastconn") else { return };
        let Some((_, name)) = BALANCES.iter().find(|(balance, _)| *balance == word.raw) else {
            let words = BALANCES.map(|(balance, _)| balance);
            self.unexpected(&word, "no way to balance is named", &words);
            return self.skip_line();
        };
        let mut name = *name;
        if word.raw == "leastconn" {
            for (wanted, scheduler) in [("localitybased", "lblc"), ("replication", "lblcr")] {
                if self.lexer.peek().is_some_and(|token| !token.is_first && token.raw == wanted) {
                    self.lexer.next();
                    name = scheduler;
                }
            }
        }
        self.end_line("behind `balance`");
        let span = word.span.clone();
        let builtin = At { span: span.clone(), value: BuiltinText(name.to_owned()) };
        let value = if word.raw == "srcdst" {
            let key = Some(At { span: span.clone(), value: Key::FiveTuple });
            TextOrTable::Table(SchedulerTable { name: Some(builtin), key, ..SchedulerTable::default() })
        } else {
            TextOrTable::Text(builtin.value)
        };
        if word.raw == "srcdst" {
            let message = "`srcdst` hashes more than addresses here: ports and protocol as well";
            let misfit = Misfit::new(Code::NotKept, &word.span, message.to_owned());
            self.misfit(
                misfit.help("write `balance source` where all flows of a client must reach one real server"),
            );
        }
        director.scheduler = Some(At { span, value });
    }

    fn not_checked(&mut self, token: &Token<'t>) {
        self.skip_line();
        let message = format!("{} is not kept", quote(token.raw));
        self.misfit(Misfit::new(Code::NotKept, &token.span, message).help(NO_CHECKS));
    }

    fn option(&mut self, first: &Token<'t>, director: &mut Director) {
        const OPTIONS: [&str; 5] = ["persistence", "httpcheck", "tcpcheck", "arpcheck", "icmpcheck"];
        let Some(word) = self.value(first, "the option", "persistence timeout 300") else { return };
        if word.raw != "persistence" {
            if OPTIONS.contains(&word.raw) {
                return self.not_checked(&word);
            }
            self.unexpected(&word, "no option is named", &OPTIONS);
            return self.skip_line();
        }
        let mut table = Stickiness::default();
        while let Some(token) = self.lexer.next_on_line() {
            match token.raw {
                "timeout" => {
                    let value = self.value(&token, "the time", "300");
                    table.timeout = value.map(|value| at(&value, |text| DurationText(seconds(text))));
                }
                "netmask" => {
                    let value = self.value(&token, "the mask", "255.255.255.0");
                    table.netmask = value.map(|value| {
                        at(&value, |text| match text.parse::<u8>() {
                            Ok(length) if length <= 32 => Netmask::Length(i64::from(length)),
                            _ => Netmask::Mask(NetmaskText(text)),
                        })
                    });
                }
                _ => {
                    self.unexpected(&token, "persistence has no", &["timeout", "netmask"]);
                    self.skip_line();
                }
            }
        }
        director.persistence = Some(At { span: word.span, value: Persistence::Table(table) });
    }

    /// A real server; one that is to stand in for the others is left out.
    fn server(&mut self, first: &Token<'t>) -> Option<At<Server>> {
        let name = self.value(first, "the name", "NAME 10.0.3.20:80 weight 10")?;
        let address = self.value(first, "the address", "NAME 10.0.3.20:80")?;
        let mut server = Server {
            name: Some(at(&name, NameText)),
            address: Some(at(&address, EndpointText)),
            ..Server::default()
        };
        let mut is_sorry = false;
        while let Some(token) = self.lexer.next_on_line() {
            match token.raw {
                "weight" => {
                    let Some(value) = self.value(&token, "the weight", "10") else { break };
                    if let Ok(weight) = value.raw.parse::<i64>() {
                        server.weight = Some(At { span: value.span.clone(), value: weight });
                    }
                    if server.weight.as_ref().is_none_or(|at| !(0..=256).contains(&at.value)) {
                        server.weight = None;
                        let message = format!("{} is not a weight", quote(value.raw));
                        let misfit = Misfit::new(Code::OutOfRange, &value.span, message);
                        self.misfit(misfit.help("write a number from 0 to 256; 0 drains the real server"));
                    }
                }
                "check" => {
                    let message = "`check` is not kept".to_owned();
                    self.misfit(Misfit::new(Code::NotKept, &token.span, message).help(NO_CHECKS));
                }
                "sorry" => {
                    is_sorry = true;
                    let message =
                        format!("the real server {} is left out: `sorry` is not kept", quote(name.raw));
                    self.misfit(Misfit::new(Code::NotKept, &token.span, message).help(NO_CHECKS));
                }
                _ => {
                    self.unexpected(&token, "a real server has no", &["weight", "check", "sorry"]);
                    self.skip_line();
                }
            }
        }
        (!is_sorry).then(|| At { span: first.span.start..self.lexer.last_end(), value: server })
    }
}

/// A time of which the unit may be missing: seconds.
fn seconds(text: String) -> String {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("{text}s") } else { text }
}
