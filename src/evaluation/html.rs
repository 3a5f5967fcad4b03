//! The report as a page: one file, without anything from elsewhere, its plots drawn as SVG.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::report::Report;

/// Texts on which two models differ that are shown; the JSON has them all.
const SHOWN_DIFFERENCES: usize = 200;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 300;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1d232a}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse}td,th{padding:.25rem .7rem;\
text-align:right;border-bottom:1px solid #dde2e8}td:first-child,th:first-child{text-align:left}.figures{display:flex;\
flex-wrap:wrap;gap:1rem}.figures div{background:#f2f5f8;border-radius:.4rem;padding:.6rem 1rem}.figures b{display:block;\
font-size:1.4rem}.text{text-align:left;font-size:.85rem;color:#444}svg text{font:12px system-ui,sans-serif;fill:#444}";

/// The page of `report`; `compared` is the report of the second model and what both come to.
#[must_use]
pub fn page(report: &Report, compared: Option<(&Report, &Comparison)>) -> String {
    let mut page = String::with_capacity(32 << 10);
    let title = format!("Evaluation of {}", escape(&report.model));
    page += &format!("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>");
    page += &format!("<style>{STYLE}</style><h1>{title}</h1>");
    page += &model(report);
    if let Some((other, comparison)) = compared {
        page += &comparison_part(comparison);
        page += &format!("<h1>{}</h1>", escape(&other.model));
        page += &model(other);
    }
    page += "</html>\n";
    page
}

fn model(report: &Report) -> String {
    let mut part = figures(report);
    part += "<h2>Classes</h2><table><tr><th>class<th>precision<th>recall<th>F1<th>texts<th>answered</tr>";
    for class in &report.classes {
        _ = write!(
            part,
            "<tr><td>{}<td>{:.3}<td>{:.3}<td>{:.3}<td>{}<td>{}</tr>",
            escape(&class.label),
            class.precision,
            class.recall,
            class.f1,
            class.support,
            class.predicted
        );
    }
    part += "</table><h2>Who is taken for whom</h2><p>Rows: what the texts are. Columns: what the model says.</p>";
    part += &confusion(report);
    part += "<h2>As sure as right?</h2><p>Bars: the share of right answers among the texts of which the model was about as \
             sure. On the dashed line both are equal.</p>";
    part += &reliability(report);
    if !report.refused.is_empty() {
        part += "<h2>Not answered</h2><table><tr><th>line<th>code<th>message</tr>";
        for refused in report.refused.iter().take(SHOWN_DIFFERENCES) {
            let (code, message) = (escape(&refused.code), escape(&refused.message));
            _ = write!(part, "<tr><td>{}<td>{code}<td class=\"text\">{message}</tr>", refused.line);
        }
        part += "</table>";
    }
    part
}

fn figures(report: &Report) -> String {
    let [low, high] = report.accuracy_interval;
    let latency = &report.latency;
    let figures = [
        ("accuracy", format!("{:.4}", report.accuracy), format!("95%: {low:.4} to {high:.4}")),
        ("macro F1", format!("{:.4}", report.macro_f1), format!("{} texts", report.texts)),
        ("ECE", format!("{:.4}", report.calibration.ece), format!("log loss {:.3}", report.calibration.log_loss)),
        (
            "texts a second",
            format!("{:.0}", latency.texts_per_s),
            format!("{} at once; p50 {:.1} ms, p99 {:.1} ms", latency.window, latency.p50_ms, latency.p99_ms),
        ),
    ];
    let shown = figures.iter().map(|(name, figure, note)| format!("<div>{name}<b>{figure}</b>{note}</div>"));
    format!("<div class=\"figures\">{}</div>", shown.collect::<String>())
}

fn confusion(report: &Report) -> String {
    let mut table = "<table><tr><th>".to_owned();
    for label in &report.labels {
        table += &format!("<th>{}", escape(label));
    }
    table += "</tr>";
    for (row, label) in report.confusion.iter().zip(&report.labels) {
        let most = row.iter().sum::<usize>().max(1);
        table += &format!("<tr><td>{}", escape(label));
        for count in row {
            let shade = *count as f64 / most as f64;
            _ = write!(table, "<td style=\"background:rgba(31,119,180,{shade:.3})\">{count}");
        }
        table += "</tr>";
    }
    table + "</table>"
}

/// A bar for each bin of confidence, 360 by 300 points.
fn reliability(report: &Report) -> String {
    const SIDE: f64 = 260.0;
    let (x, y) = (|share: f64| 40.0 + share * SIDE, |share: f64| 10.0 + (1.0 - share) * SIDE);
    let mut plot = format!(
        "<svg width=\"360\" height=\"310\" role=\"img\" aria-label=\"reliability\"><rect x=\"40\" y=\"10\" width=\"{SIDE}\" \
         height=\"{SIDE}\" fill=\"none\" stroke=\"#99a\"/>"
    );
    let most = report.calibration.bins.iter().map(|bin| bin.texts).max().unwrap_or(0).max(1) as f64;
    for bin in report.calibration.bins.iter().filter(|bin| bin.texts > 0) {
        let (width, top) = ((bin.to - bin.from) * SIDE - 2.0, y(bin.accuracy));
        // Bins of few texts are pale: their height says little.
        let opacity = 0.25 + 0.75 * (bin.texts as f64 / most).sqrt();
        _ = write!(
            plot,
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#1f77b4\" \
             opacity=\"{opacity:.2}\"><title>{:.2} to {:.2}: {} texts, confidence {:.3}, right {:.3}</title></rect>",
            x(bin.from) + 1.0,
            y(0.0) - top,
            bin.from,
            bin.to,
            bin.texts,
            bin.confidence,
            bin.accuracy,
        );
    }
    _ = write!(
        plot,
        "<line x1=\"{0}\" y1=\"{1}\" x2=\"{2}\" y2=\"{3}\" stroke=\"#d62728\" stroke-dasharray=\"5 4\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0)
    );
    for share in [0.0, 0.5, 1.0] {
        _ = write!(
            plot,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{share}</text>",
            x(share),
            y(0.0) + 16.0
        );
        _ = write!(plot, "<text x=\"34\" y=\"{:.0}\" text-anchor=\"end\">{share}</text>", y(share) + 4.0);
    }
    plot + "<text x=\"170\" y=\"304\" text-anchor=\"middle\">how sure</text></svg>"
}

fn comparison_part(comparison: &Comparison) -> String {
    let (first, second) = (escape(&comparison.first), escape(&comparison.second));
    let [low, high] = comparison.accuracy_difference_interval;
    let [f1_low, f1_high] = comparison.macro_f1_difference_interval;
    let mut part = format!(
        "<h1>{first} and {second}</h1><table><tr><th><th>{second} right<th>{second} wrong</tr>\
         <tr><td>{first} right<td>{}<td>{}</tr><tr><td>{first} wrong<td>{}<td>{}</tr></table>\
         <p>{second} minus {first}: accuracy {:+.4} (95%: {low:+.4} to {high:+.4}), macro F1 {:+.4} ({f1_low:+.4} to \
         {f1_high:+.4}). McNemar's exact test: p = {:.4}. They agree on {:.1}% of the texts.</p>\
         <h2>Where they differ</h2><table><tr><th>line<th>is<th>{first}<th>{second}<th>text</tr>",
        comparison.both_right,
        comparison.only_first_right,
        comparison.only_second_right,
        comparison.both_wrong,
        comparison.accuracy_difference,
        comparison.macro_f1_difference,
        comparison.mcnemar_p,
        comparison.agreement * 100.0,
    );
    for difference in comparison.differences.iter().take(SHOWN_DIFFERENCES) {
        let said = |label: &Option<String>| escape(label.as_deref().unwrap_or("no answer"));
        let text: String = difference.text.chars().take(SHOWN_CHARS).collect();
        _ = write!(
            part,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=\"text\">{}</tr>",
            difference.line,
            escape(&difference.label),
            said(&difference.first),
            said(&difference.second),
            escape(&text)
        );
    }
    let more = comparison.differences.len().saturating_sub(SHOWN_DIFFERENCES);
    part += "</table>";
    if more > 0 {
        part += &format!("<p>And {more} more; --json has them all.</p>");
    }
    part
}

/// `text` as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_become_markup() {
        assert_eq!(escape("<script>'&\"</script>"), "&lt;script&gt;&#39;&amp;&quot;&lt;/script&gt;");
    }
}
