//! What is wrong with a configuration, where, and what to do: for people, for editors and for programs.
//!
//! What comes in: a code, a span and words. What goes out: text with the line shown and the span underlined, or
//! one JSON object a line. It never prints, and it never fails, whatever the text of the file is.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{
    Annotation, AnnotationKind, Element, Group, Level, Origin, Patch, Renderer, Snippet,
};

use crate::source::{Position, Source};

/// The longest excerpt that is shown, in bytes: enough for two places some screens apart. Where the lines are
/// longer, only the position is named.
const EXCERPT_BYTES_MAX: usize = 16 * 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration can be used, but probably does not do what was meant.
    Warning,
    /// The configuration can not be used.
    Error,
}

impl Severity {
    /// The word that text and JSON show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $severity:ident $variant:ident = $name:literal,)+) => {
        /// What kind of mistake it is. The names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that text and JSON show.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One line: what it means.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }

            /// Whether the configuration can still be used.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$variant => Severity::$severity,)+
                }
            }
        }
    };
}

codes! {
    /// The file can not be read.
    Error Unreadable = "unreadable",
    /// The file is larger than a configuration can reasonably be (4 MiB).
    Error TooLarge = "too-large",
    /// The file is not UTF-8.
    Error NotUtf8 = "not-utf8",
    /// The file is not TOML.
    Error Syntax = "syntax",
    /// A key that does not exist here.
    Error UnknownKey = "unknown-key",
    /// A key that is needed is not there.
    Error MissingKey = "missing-key",
    /// A value of another type than the key takes.
    Error WrongType = "wrong-type",
    /// A number outside of its range.
    Error OutOfRange = "out-of-range",
    /// A word that is not one of those that the key takes.
    Error UnknownValue = "unknown-value",
    /// More of something than the forwarder can hold.
    Error TooMany = "too-many",
    /// A name that is empty, too long, or has a character that names may not have.
    Error BadName = "bad-name",
    /// Two things of the same kind have the same name.
    Error DuplicateName = "duplicate-name",
    /// Something that is not an address.
    Error BadAddress = "bad-address",
    /// Something that is not a network.
    Error BadNetwork = "bad-network",
    /// Something that is not a netmask.
    Error BadNetmask = "bad-netmask",
    /// Something that is not a MAC address.
    Error BadMac = "bad-mac",
    /// Something that is not a port from 1 to 65535.
    Error BadPort = "bad-port",
    /// Something that is not a range of ports.
    Error BadPortRange = "bad-port-range",
    /// Something that is not `address:ports/protocol`.
    Error BadBind = "bad-bind",
    /// A policy component that is not there.
    Error UnknownComponent = "unknown-component",
    /// A protocol that can not stand here.
    Error UnknownProtocol = "unknown-protocol",
    /// Something that is not a duration.
    Error BadDuration = "bad-duration",
    /// Something that is not a size.
    Error BadSize = "bad-size",
    /// A scheduler that is not built in.
    Error UnknownScheduler = "unknown-scheduler",
    /// A mode other than `nat`, `gateway` and `tunnel`.
    Error UnknownMode = "unknown-mode",
    /// An interface that the file does not declare.
    Error UnknownInterface = "unknown-interface",
    /// A director that the file does not declare.
    Error UnknownDirector = "unknown-director",
    /// The same addresses, ports and protocol are bound twice.
    Error DuplicateBinding = "duplicate-binding",
    /// Two real servers of a director have the same address and port.
    Error DuplicateServer = "duplicate-server",
    /// A real server has the address, port and protocol of a director, so that packets would go in circles.
    Error ServerIsDirector = "server-is-director",
    /// A real server with another port than the VIP, where packets reach it unchanged.
    Error PortUnchanged = "port-unchanged",
    /// The ports of a source NAT hold the port of a director on the same address.
    Error SnatOverlap = "snat-overlap",
    /// An IPv4 address and an IPv6 address where both must be of one family.
    Error FamilyMismatch = "family-mismatch",
    /// Two things that exclude each other.
    Error Conflict = "conflict",
    /// A tunnel for whose outer packets there is no source address.
    Error NoTunnelSource = "no-tunnel-source",
    /// A rule that is not exactly one of `match` and `ignore`.
    Error BadRule = "bad-rule",
    /// A flow without rules: no packet belongs to it.
    Error EmptyFlow = "empty-flow",
    /// A word that can not stand where it does, in a text of rules.
    Error BadWord = "bad-word",
    /// A set that is not declared, or of the wrong kind.
    Error UnknownSet = "unknown-set",
    /// A routing table without a route.
    Error UnknownTable = "unknown-table",
    /// A text of another system that has nothing to import.
    Error NoServices = "no-services",
    /// Something that is not a limit, a flag of TCP or a code point.
    Error BadCondition = "bad-condition",
    /// A condition on ports in a rule without a protocol that has ports.
    Error PortWithoutProtocol = "port-without-protocol",
    /// A text that names no component.
    Error BadComponent = "bad-component",
    /// A component that can not be read, or that is not what it is used as.
    Error Component = "component",
    /// The engine refused the plan.
    Error Refused = "refused",
    /// A director without real servers: every new flow is dropped.
    Warning NoServers = "no-servers",
    /// All real servers of a director have weight 0: every new flow is dropped.
    Warning AllDrained = "all-drained",
    /// No director: nothing is balanced.
    Warning NoDirectors = "no-directors",
    /// A director that gets no packets: no flow leads to it, and it is bound to nothing, or flows take all that is for it.
    Warning UnusedDirector = "unused-director",
    /// Two directors serve some of the same ports, and neither serves fewer of them than the other.
    Warning OverlappingBindings = "overlapping-bindings",
    /// A rule of source NAT that an earlier one leaves nothing.
    Warning ShadowedSnat = "shadowed-snat",
    /// Several interfaces and no default route: packets to other networks are dropped.
    Warning NoDefaultRoute = "no-default-route",
    /// A rule that decides about no packet: another before it, or several together, take them all.
    Warning ShadowedRule = "shadowed-rule",
    /// Something that this forwarder does not do; the rest of the file works without it.
    Warning NotKept = "not-kept",
    /// A rule whose conditions no packet meets.
    Warning NeverHolds = "never-holds",
}

/// Text that would repair the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) span: Range<usize>,
    pub(crate) text: String,
}

/// One mistake, with its place in the file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    source: Arc<Source>,
    code: Code,
    message: String,
    span: Option<Range<usize>>,
    label: String,
    also: Vec<(Range<usize>, String)>,
    help: Option<String>,
    repair: Option<Repair>,
}

impl Diagnostic {
    pub(crate) fn new(source: &Arc<Source>, code: Code, span: &Range<usize>, message: String) -> Self {
        let span = Some(source.clamp_span(span));
        Self { span, ..Self::without_place(source, code, message) }
    }

    pub(crate) fn without_place(source: &Arc<Source>, code: Code, message: String) -> Self {
        let source = Arc::clone(source);
        let (label, also) = (String::new(), Vec::new());
        Self { source, code, message, span: None, label, also, help: None, repair: None }
    }

    /// Words under the underlined span.
    #[must_use]
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place that has to do with it.
    #[must_use]
    pub(crate) fn also(mut self, span: &Range<usize>, label: impl Into<String>) -> Self {
        self.also.push((self.source.clamp_span(span), label.into()));
        self
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What to do about it, as an edit of the file.
    #[must_use]
    pub(crate) fn repair(
        self,
        span: &Range<usize>,
        text: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let repair = Some(Repair { span: self.source.clamp_span(span), text: text.into() });
        Self { repair, ..self.help(help) }
    }

    /// What kind of mistake it is.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// What is wrong, in one sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, when that is known.
    #[must_use]
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Whether its place is within `span`.
    #[must_use]
    pub(crate) fn is_within(&self, span: &Range<usize>) -> bool {
        self.span.as_ref().is_some_and(|own| span.start <= own.start && own.end <= span.end)
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        self.span.as_ref().map_or(&self.source.name, |span| self.source.name_at(span.start))
    }

    /// Where it begins and ends (the end is not included), when it has a place in the file.
    #[must_use]
    pub fn place(&self) -> Option<(Position, Position)> {
        let span = self.span.as_ref()?;
        Some((self.source.position(span.start), self.source.position(span.end)))
    }

    /// The text for people, with colours for a terminal or without.
    #[must_use]
    pub fn render(&self, with_colour: bool) -> String {
        let renderer = if with_colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&self.groups())
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let level = match self.severity() {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code.name());
        let mut group = match self.excerpt() {
            Some(excerpt) => title.element(excerpt),
            None => title.element(self.origin()),
        };
        match (&self.help, self.patch()) {
            (Some(help), Some(patch)) => {
                vec![group, Level::HELP.secondary_title(help.as_str()).element(patch)]
            }
            (Some(help), None) => {
                group = group.element(Level::HELP.message(help.as_str()));
                vec![group]
            }
            (None, _) => vec![group],
        }
    }

    /// The file, and the place when there is one, without an excerpt.
    fn origin(&self) -> Origin<'_> {
        let origin = Origin::path(self.file());
        match self.place() {
            Some((start, _)) => origin.line(start.line).char_column(start.column),
            None => origin,
        }
    }

    /// The lines of the file that have to do with it, with the spans marked.
    fn excerpt(&self) -> Option<Element<'_>> {
        let span = self.span.as_ref()?;
        let near = || self.also.iter().filter(|(other, _)| self.source.is_one_file(span.start, other.start));
        let spans = || std::iter::once(span).chain(near().map(|(span, _)| span));
        let start = spans().map(|span| span.start).min()?;
        let end = spans().map(|span| span.end).max()?;
        let (lines, first) = self.source.lines(&(start..end));
        if lines.len() > EXCERPT_BYTES_MAX {
            return None;
        }
        let mark = |kind: AnnotationKind, span: &Range<usize>, label: &str| -> Annotation<'_> {
            let mark = kind.span(self.visible(span, &lines));
            if label.is_empty() { mark } else { mark.label(label.to_owned()) }
        };
        let snippet = Snippet::source(self.source.excerpt(&lines))
            .path(self.file())
            .line_start(first)
            .annotation(mark(AnnotationKind::Primary, span, &self.label))
            .annotations(near().map(|(span, label)| mark(AnnotationKind::Context, span, label)));
        Some(snippet.into())
    }

    /// The span within the excerpt, at most one line of it: what runs over many lines is shown by its first.
    fn visible(&self, span: &Range<usize>, lines: &Range<usize>) -> Range<usize> {
        let text = self.source.slice(span);
        let length = text.find(['\n', '\r']).unwrap_or(text.len());
        let start = span.start - lines.start;
        start..start + length
    }

    /// The edit that would repair the file, as a difference.
    fn patch(&self) -> Option<Element<'_>> {
        let repair = self.repair.as_ref()?;
        let (lines, first) = self.source.lines(&repair.span);
        if lines.len() > EXCERPT_BYTES_MAX {
            return None;
        }
        let span = repair.span.start - lines.start..repair.span.end - lines.start;
        let snippet = Snippet::source(self.source.excerpt(&lines))
            .line_start(first)
            .path(self.source.name_at(repair.span.start))
            .patch(Patch::new(span, repair.text.as_str()));
        Some(snippet.into())
    }

    /// The object for programs: `severity`, `code`, `message`, `file`, `line`, `column`, `end_line`, `end_column`
    /// (numbers from 1, the end not included; null without a place), `help` (text or null), `also` (list of
    /// `file`, `line`, `column`, `message`) and `repair` (null, or `line`, `column`, `end_line`, `end_column`, `text`).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let place = self.place();
        let number = |of: fn((Position, Position)) -> usize| place.map(of);
        let also = self.also.iter().map(|(span, label)| {
            let Position { line, column } = self.source.position(span.start);
            let file = self.source.name_at(span.start);
            serde_json::json!({ "file": file, "line": line, "column": column, "message": label })
        });
        let repair = self.repair.as_ref().map(|Repair { span, text }| {
            let (start, end) = (self.source.position(span.start), self.source.position(span.end));
            serde_json::json!({
                "line": start.line, "column": start.column,
                "end_line": end.line, "end_column": end.column,
                "text": text,
            })
        });
        serde_json::json!({
            "severity": self.severity().name(),
            "code": self.code.name(),
            "message": self.message,
            "file": self.file(),
            "line": number(|(start, _)| start.line),
            "column": number(|(start, _)| start.column),
            "end_line": number(|(_, end)| end.line),
            "end_column": number(|(_, end)| end.column),
            "help": self.help,
            "also": also.collect::<Vec<_>>(),
            "repair": repair,
        })
    }
}

/// Everything that was found in one file, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostics {
    /// The most mistakes that are kept of one file: more than anyone reads at once. The rest is counted.
    pub const MAX: usize = 100;

    /// Adds one. Beyond the bound errors are kept rather than warnings, and the rest is counted.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < Self::MAX {
            self.list.push(diagnostic);
            return;
        }
        self.omitted += 1;
        if diagnostic.severity() == Severity::Error {
            let warning = self.list.iter_mut().rev().find(|kept| kept.severity() == Severity::Warning);
            if let Some(place) = warning {
                *place = diagnostic;
            }
        }
    }

    /// Whether further ones are only counted.
    pub(crate) const fn is_full(&self) -> bool {
        self.list.len() >= Self::MAX
    }

    /// Puts them in the order of the file.
    pub(crate) fn sort(&mut self) {
        self.list.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| (span.start, span.end)));
    }

    /// With other words about what to do where the file can not be read, from whoever knows how it was named.
    #[must_use]
    pub fn help_to_find_it(mut self, help: &str) -> Self {
        for diagnostic in self.list.iter_mut().filter(|diagnostic| diagnostic.code == Code::Unreadable) {
            diagnostic.help = Some(help.to_owned());
        }
        self
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are, those beyond [`Diagnostics::MAX`] included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len() + self.omitted
    }

    /// Whether nothing was found.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
    }

    /// The text for people: every mistake, then how many there are. Ends with a line feed unless it is empty.
    #[must_use]
    pub fn render(&self, with_colour: bool) -> String {
        let mut text = String::new();
        for diagnostic in &self.list {
            text.push_str(&diagnostic.render(with_colour));
            text.push_str("\n\n");
        }
        if let Some(summary) = self.summary() {
            text.push_str(&summary);
            text.push('\n');
        }
        text
    }

    /// How many there are, in words; nothing when there are none.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let file = self.list.first()?.source.name.as_str();
        let errors = self.list.iter().filter(|found| found.severity() == Severity::Error).count();
        let warnings = self.list.len() - errors;
        let count = |number: usize, word: &str| match number {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{number} {word}s")),
        };
        let omitted = (self.omitted > 0).then(|| format!("{} more not shown", self.omitted));
        let parts = [count(errors, "error"), count(warnings, "warning"), omitted];
        Some(format!("{file}: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", ")))
    }

    /// The text for programs: one JSON object a line, see [`Diagnostic::to_json`].
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        self.list.iter().map(|diagnostic| format!("{}\n", diagnostic.to_json())).collect()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic], omitted: 0 }
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(iter: I) -> Self {
        let mut diagnostics = Self::default();
        iter.into_iter().for_each(|diagnostic| diagnostics.push(diagnostic));
        diagnostics.sort();
        diagnostics
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl Error for Diagnostic {}
impl Error for Diagnostics {}
