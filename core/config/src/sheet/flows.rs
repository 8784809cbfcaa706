//! `flow NAME POLICY` and its rules.

use super::lexer::Token;
use super::{Entry, Item, Reader, at, list};
use crate::diagnostic::Code;
use crate::document::Misfit;
use crate::forms::quote;
use crate::written::{
    At, Conditions, DscpText, FlagsText, Flow, FlowPolicyText, IcmpType, InterfaceNameText, LimitText,
    NameText, Negated, NetworksText, NumberOr, PortsText, ProtocolText, Rule,
};

const POLICIES: [&str; 6] = ["permit", "deny", "skip", "director", "table", "component"];
const CONDITIONS: [&str; 12] = [
    "not", "iface", "proto", "src", "dst", "srcport", "dstport", "icmptype", "tcpflags", "dscp", "limit",
    "comment",
];

impl<'t> Reader<'t, '_> {
    pub(super) fn flow(&mut self, first: &Token<'t>, is_outflow: bool) {
        let Some(name) = self.value(first, "the name", "NAME permit") else { return self.skip_to_item() };
        let policy = self.policy(&name);
        let mut rules = Vec::new();
        while let Some(token) = self.lexer.peek().cloned() {
            match token.raw {
                "match" | "ignore" => {
                    self.lexer.next();
                    rules.push(self.rule(&token));
                }
                word if token.is_first && super::ITEMS.contains(&word) => break,
                _ => {
                    self.unexpected(&token, "no rule begins with", &["match", "ignore"]);
                    self.skip_to_rule();
                    // It was meant to be one, so the flow is not without rules.
                    let conditions = Some(At { span: token.span.clone(), value: Conditions::default() });
                    let rule = Rule { r#match: conditions, ..Rule::default() };
                    rules.push(At { span: token.span, value: rule });
                }
            }
        }
        let end = rules.last().map_or(name.span.end, |rule: &At<Rule>| rule.span.end);
        let rule = (!rules.is_empty()).then_some(At { span: first.span.start..end, value: rules });
        let flow = Flow { name: Some(at(&name, NameText)), policy, rule };
        let flow = At { span: first.span.start..end, value: flow };
        let (item, flows) = if is_outflow {
            (Item::Outflow, &mut self.sheet.outflows)
        } else {
            (Item::Flow, &mut self.sheet.flows)
        };
        let number = flows.len();
        let span = flow.span.clone();
        flows.push(flow);
        self.sheet.order.push(Entry { item, number, span });
    }

    /// The policy behind the name, if there is one on its line.
    fn policy(&mut self, name: &Token<'t>) -> Option<At<FlowPolicyText>> {
        let is_policy = |token: &&Token<'_>| !token.is_first && !["match", "ignore"].contains(&token.raw);
        let token = self.lexer.peek().filter(is_policy).cloned()?;
        self.lexer.next();
        match token.raw {
            "permit" | "deny" | "skip" => Some(at(&token, FlowPolicyText)),
            "director" | "table" | "component" => {
                let (what, example) = match token.raw {
                    "table" => ("the number of the table", "200"),
                    "director" => ("the director's name", "NAME"),
                    _ => ("the component's name", "NAME"),
                };
                let value = self.value(&token, what, example)?;
                let text = format!("{} {}", token.raw, value.text());
                Some(At { span: token.span.start..value.span.end, value: FlowPolicyText(text) })
            }
            _ => {
                let what = format!("the policy of {} can not be", quote(name.raw));
                self.unexpected(&token, &what, &POLICIES);
                None
            }
        }
    }

    fn skip_to_rule(&mut self) {
        let begins = |token: &Token<'_>| {
            token.is_first && (super::ITEMS.contains(&token.raw) || ["match", "ignore"].contains(&token.raw))
        };
        self.lexer.next();
        while self.lexer.peek().is_some_and(|token| !begins(token)) {
            self.lexer.next();
        }
    }

    /// One rule, from its first word to the one that begins something else.
    fn rule(&mut self, first: &Token<'t>) -> At<Rule> {
        let (mut plain, mut negated) = (Conditions::default(), Negated::default());
        let mut has_negated = false;
        let mut comment = None;
        let mut end = first.span.end;
        while let Some(token) = self.lexer.peek().cloned() {
            let is_next = ["match", "ignore"].contains(&token.raw);
            if is_next || (token.is_first && !CONDITIONS.contains(&token.raw)) {
                break;
            }
            self.lexer.next();
            let word = if token.raw == "not" {
                let Some(word) = self.value(&token, "a condition", "src 192.0.2.0/24") else { break };
                word
            } else {
                token.clone()
            };
            let is_negated = token.raw == "not";
            if word.raw == "comment" && !is_negated {
                let value = self.value(&word, "the comment", "\"why\"");
                comment = value.map(|value| at(&value, |text| text)).or(comment);
            } else if CONDITIONS.contains(&word.raw) && word.raw != "not" && word.raw != "comment" {
                has_negated |= is_negated;
                let is_new = if is_negated {
                    self.negated(&mut negated, &word)
                } else {
                    self.plain(&mut plain, &word)
                };
                if !is_new {
                    self.twice(&word, is_negated);
                }
            } else {
                let allowed =
                    CONDITIONS.get(usize::from(is_negated)..CONDITIONS.len() - usize::from(is_negated));
                self.unexpected(&word, "no condition is named", allowed.unwrap_or_default());
                self.skip_line();
            }
            end = self.lexer.last_end();
        }
        let span = first.span.start..end;
        plain.not = has_negated.then(|| At { span: span.clone(), value: negated });
        let conditions = Some(At { span: span.clone(), value: plain });
        let rule = if first.raw == "match" {
            Rule { r#match: conditions, ignore: None, comment }
        } else {
            Rule { r#match: None, ignore: conditions, comment }
        };
        At { span, value: rule }
    }

    fn twice(&mut self, word: &Token<'_>, is_negated: bool) {
        let word_text = if is_negated { format!("not {}", word.raw) } else { word.raw.to_owned() };
        let misfit =
            Misfit::new(Code::DuplicateName, &word.span, format!("the rule has `{word_text}` twice"));
        self.misfit(misfit.help("write one list with commas and no spaces, or another rule"));
    }

    /// The value of a number from 0 to 255; anything else is reported.
    fn byte(&mut self, token: &Token<'_>, what: &str) -> Option<Vec<At<IcmpType>>> {
        let mut all = Vec::new();
        for (span, text) in super::parts(token) {
            match text.parse::<u8>() {
                Ok(number) => all.push(At { span, value: IcmpType(i64::from(number)) }),
                Err(_) => {
                    let message = format!("{} is not {what}", quote(&text));
                    let misfit = Misfit::new(Code::BadCondition, &span, message);
                    self.misfit(misfit.help("write a number from 0 to 255, as in `icmptype 8`"));
                    return None;
                }
            }
        }
        Some(all)
    }

    /// `RATE`, then `burst N` and `per src` or `per dst` in any order, on one line.
    fn limit(&mut self, word: &Token<'t>) -> Option<At<LimitText>> {
        let rate = self.value(word, "the rate", "1000/s burst 200 per src")?;
        let (mut burst, mut per, mut end) = (String::new(), String::new(), rate.span.end);
        while let Some(token) =
            self.lexer.peek().filter(|token| ["burst", "per"].contains(&token.raw)).cloned()
        {
            self.lexer.next();
            let Some(value) = self.value(&token, "a value", if token.raw == "per" { "src" } else { "200" })
            else {
                break;
            };
            let part = if token.raw == "per" { &mut per } else { &mut burst };
            *part = format!(" {} {}", token.raw, value.raw);
            end = value.span.end;
        }
        let text = format!("{}{burst}{per}", rate.raw);
        Some(At { span: rate.span.start..end, value: LimitText(text) })
    }
}

/// How a condition is read into its field. Gives whether the field was free.
macro_rules! conditions {
    ($name:ident, $table:ty) => {
        impl<'t> Reader<'t, '_> {
            fn $name(&mut self, conditions: &mut $table, word: &Token<'t>) -> bool {
                if word.raw == "limit" {
                    let limit = self.limit(word);
                    return limit.is_none_or(|limit| put(&mut conditions.limit, limit));
                }
                let Some(value) = self.value(word, "a value", example(word.raw)) else { return true };
                match word.raw {
                    "iface" => put(&mut conditions.iface, at(&value, InterfaceNameText)),
                    "proto" => put(&mut conditions.proto, at(&value, ProtocolText)),
                    "src" => put(&mut conditions.src, list(&value, NetworksText)),
                    "dst" => put(&mut conditions.dst, list(&value, NetworksText)),
                    "srcport" => {
                        put(&mut conditions.srcport, list(&value, |text| NumberOr::Text(PortsText(text))))
                    }
                    "dstport" => {
                        put(&mut conditions.dstport, list(&value, |text| NumberOr::Text(PortsText(text))))
                    }
                    "tcpflags" => put(&mut conditions.tcpflags, at(&value, FlagsText)),
                    "dscp" => put(&mut conditions.dscp, list(&value, |text| NumberOr::Text(DscpText(text)))),
                    _ => {
                        let Some(all) = self.byte(&value, "the type of an ICMP message") else { return true };
                        let value =
                            At { span: value.span.clone(), value: crate::written::OneOrMany::Many(all) };
                        put(&mut conditions.icmptype, value)
                    }
                }
            }
        }
    };
}

conditions!(plain, Conditions);
conditions!(negated, Negated);

/// Fills a field; whether it was free.
fn put<T>(field: &mut Option<T>, value: T) -> bool {
    field.replace(value).is_none()
}

/// What may stand behind a word.
fn example(word: &str) -> &'static str {
    match word {
        "iface" => "eth0",
        "proto" => "tcp",
        "src" | "dst" => "192.0.2.0/24",
        "srcport" | "dstport" => "80",
        "tcpflags" => "syn/syn,ack",
        "dscp" => "ef",
        _ => "8",
    }
}
