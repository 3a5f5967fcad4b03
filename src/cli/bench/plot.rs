//! Plots as inline SVG: axes, lines, points, squares. Nothing from elsewhere, so that a page is one file.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// Colours that are told apart by most eyes, in light and in dark (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"];

/// The colour of the series at `place`.
pub(super) fn colour(place: usize) -> &'static str {
    COLOURS.get(place % COLOURS.len()).copied().unwrap_or("#999999")
}

/// How values lie along an axis.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Linear { low: f64, high: f64 },
    Logarithmic { low: f64, high: f64 },
}

impl Scale {
    /// From 0 to the greatest of `values`.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0_f64, f64::max);
        Self::Linear { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 } }
    }

    /// Whole decades around the values above 0.
    pub(super) fn decades(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(0.0_f64, f64::max);
        if high <= 0.0 {
            return Self::Logarithmic { low: 1.0, high: 10.0 };
        }
        let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        Self::Logarithmic { low, high: high.max(low * 10.0) }
    }

    /// Where `value` lies, 0 at the lower end and 1 at the upper.
    fn place(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Logarithmic { low, high } => (value.max(low) / low).ln() / (high / low).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Values that get a mark.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { low, high } => {
                let raw = (high - low) / 5.0;
                let decade = 10_f64.powf(raw.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * decade).find(|step| *step >= raw);
                let step = step.unwrap_or(raw);
                (0..=10)
                    .map(|count| (low / step).ceil() * step + f64::from(count) * step)
                    .filter(|tick| *tick <= high)
                    .collect()
            }
            Self::Logarithmic { low, high } => {
                let decades = (high / low).log10().round();
                (0..=12)
                    .map(f64::from)
                    .filter(|decade| *decade <= decades)
                    .map(|decade| low * 10_f64.powf(decade))
                    .collect()
            }
        }
    }
}

/// A plot that is being drawn.
pub(super) struct Plot {
    svg: String,
    x: Scale,
    y: Scale,
}

impl Plot {
    /// Axes with their names.
    pub(super) fn new((x_name, x): (&str, Scale), (y_name, y): (&str, Scale)) -> Self {
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for tick in x.ticks() {
            let at = LEFT + x.place(tick) * (WIDTH - LEFT - RIGHT);
            _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
                HEIGHT - BOTTOM
            );
            _ = write!(
                svg,
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                short(tick)
            );
        }
        for tick in y.ticks() {
            let at = HEIGHT - BOTTOM - y.place(tick) * (HEIGHT - TOP - BOTTOM);
            _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                WIDTH - RIGHT
            );
            _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        let (middle, half) = (f64::midpoint(LEFT, WIDTH - RIGHT), f64::midpoint(TOP, HEIGHT - BOTTOM));
        _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 10.0,
            escape(x_name)
        );
        let turned = format!("transform=\"translate(14 {half}) rotate(-90)\"");
        _ = write!(svg, "<text {turned} text-anchor=\"middle\">{}</text>", escape(y_name));
        Self { svg, x, y }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM))
    }

    /// A line through `points`, dashed or not.
    pub(super) fn line(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let places = points.iter().map(|point| self.at(*point)).map(|(x, y)| format!("{x:.1},{y:.1}"));
        let places = places.collect::<Vec<_>>().join(" ");
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        _ = write!(
            self.svg,
            "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
        );
    }

    /// A point with a note that shows under the pointer.
    pub(super) fn point(&mut self, at: (f64, f64), colour: &str, note: &str) {
        let (x, y) = self.at(at);
        _ = write!(
            self.svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"><title>{}</title></circle>",
            escape(note)
        );
    }

    /// A square between two corners, as dark as `share` says, with a note.
    pub(super) fn square(&mut self, from: (f64, f64), to: (f64, f64), share: f64, note: &str) {
        let ((left, bottom), (right, top)) = (self.at(from), self.at(to));
        _ = write!(
            self.svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#0072b2\" fill-opacity=\"{share:.3}\">\
             <title>{}</title></rect>",
            right - left,
            bottom - top,
            escape(note)
        );
    }

    /// The SVG element.
    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// A number with as many digits as an axis has room for.
fn short(value: f64) -> String {
    let text = if value.abs() >= 10.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text that is no markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_places_its_ends_and_its_marks() {
        let linear = Scale::from_zero([1.0, 4.0].into_iter());
        assert!(linear.place(0.0).abs() < 1e-9 && linear.place(9.0) >= 1.0);
        assert_eq!(linear.ticks(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        let decades = Scale::decades([3.0, 0.0, 250.0].into_iter());
        assert_eq!(decades.ticks(), [1.0, 10.0, 100.0, 1_000.0]);
        assert!((decades.place(10.0) - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_drawn_is_well_formed_and_escaped() {
        let mut plot =
            Plot::new(("a < b", Scale::from_zero([1.0].into_iter())), ("y", Scale::decades([1.0].into_iter())));
        plot.line(&[(0.0, 1.0), (1.0, 5.0)], colour(0), true);
        plot.point((0.5, 2.0), colour(1), "5 & 6");
        plot.square((0.0, 1.0), (1.0, 10.0), 0.5, "half");
        let svg = plot.finish();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        assert!(svg.contains("a &lt; b") && svg.contains("5 &amp; 6"));
        for element in ["<text", "<circle", "<rect"] {
            let name = element.trim_start_matches('<');
            assert_eq!(svg.matches(element).count(), svg.matches(&format!("</{name}>")).count(), "{element}");
        }
        assert_eq!(short(0.1), "0.1");
        assert_eq!(short(100.0), "100");
    }
}
