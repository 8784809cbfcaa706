//! Tables of counts with bars beside them.

use std::fmt::Write as _;

use crate::record::markup::escaped;
use crate::record::number::{self, float};

/// The most bars; what is left is one more.
const BARS_MAX: usize = 20;

/// One bar.
#[derive(Clone, Debug, Default)]
pub(super) struct Bar {
    pub(super) name: String,
    /// What a reader should know beside the name.
    pub(super) more: String,
    pub(super) count: u64,
    /// The part of it that is drawn in another colour.
    pub(super) part: u64,
}

/// Writes bars, the largest first, as a table with a heading. `part` names the other colour.
pub(super) fn write(
    title: &str,
    note: &str,
    part: Option<&str>,
    mut bars: Vec<Bar>,
    page: &mut String,
) -> std::fmt::Result {
    bars.retain(|bar| bar.count > 0);
    if bars.is_empty() {
        return Ok(());
    }
    bars.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.name.cmp(&other.name)));
    if bars.len() > BARS_MAX {
        let rest = bars.split_off(BARS_MAX - 1);
        let sum = |of: fn(&Bar) -> u64| rest.iter().map(of).fold(0u64, u64::saturating_add);
        bars.push(Bar {
            name: format!("{} others", rest.len()),
            more: String::new(),
            count: sum(|bar| bar.count),
            part: sum(|bar| bar.part),
        });
    }
    let most = bars.iter().map(|bar| bar.count).max().unwrap_or(1);
    write!(
        page,
        "<figure class=\"chart\"><figcaption><h3>{}</h3><p>{}</p></figcaption>",
        escaped(title),
        escaped(note)
    )?;
    page.push_str("<div class=\"scroll tall\"><table><thead><tr><th scope=\"col\">reason</th><th scope=\"col\">count</th>");
    if let Some(part) = part {
        write!(page, "<th scope=\"col\">{}</th>", escaped(part))?;
    }
    page.push_str("<th scope=\"col\"><span class=\"hidden\">as a bar</span></th></tr></thead><tbody>");
    for bar in &bars {
        let share = |count: u64| float(count) * 100.0 / float(most);
        write!(
            page,
            "<tr><td class=\"words\">{}<small>{}</small></td>",
            escaped(&bar.name),
            escaped(&bar.more)
        )?;
        write!(page, "<td>{}</td>", number::grouped(bar.count))?;
        if part.is_some() {
            write!(page, "<td>{}</td>", number::grouped(bar.part))?;
        }
        write!(
            page,
            "<td><svg class=\"bar\" aria-hidden=\"true\"><rect width=\"{:.2}%\" height=\"12\"/><rect class=\"floor\" width=\"{:.2}%\" height=\"12\"/></svg></td></tr>",
            share(bar.count),
            share(bar.part),
        )?;
    }
    page.push_str("</tbody></table></div></figure>\n");
    Ok(())
}
