//! Plots as SVG: one horizontal axis of time, one vertical one, and what is drawn over them. Drawn twice, wide and narrow,
//! because text in a picture that is made smaller cannot be read; the style sheet shows the one that fits.

use std::fmt::Write;

use super::escape;

/// How a vertical axis runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From zero to this.
    Linear(f64),
    /// From the first to the second, both powers of ten, each decade as high as the others.
    Decades(f64, f64),
}

/// One area or set of points.
#[derive(Debug)]
pub(super) struct Series {
    /// Its class in the style sheet: which path it is about.
    pub(super) class: &'static str,
    pub(super) shape: Shape,
    pub(super) points: Vec<(f64, f64)>,
}

/// How points are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Dots,
    Area,
}

/// A text over a stretch of time.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) class: &'static str,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) text: String,
}

/// Short strokes along an edge, each for one event.
#[derive(Debug)]
pub(super) struct Rug {
    pub(super) class: &'static str,
    pub(super) at: Vec<f64>,
    pub(super) text: String,
}

/// A plot.
#[derive(Debug)]
pub(super) struct Chart {
    /// Name of the data that it shows, for the script.
    pub(super) name: &'static str,
    pub(super) title: String,
    /// What is to be seen, for those who cannot see it.
    pub(super) summary: String,
    pub(super) from: f64,
    pub(super) to: f64,
    /// What one unit of the horizontal axis is called.
    pub(super) unit: &'static str,
    pub(super) scale: Scale,
    pub(super) vertical_unit: &'static str,
    pub(super) series: Vec<Series>,
    pub(super) notes: Vec<Note>,
    pub(super) rugs: Vec<Rug>,
    /// What is written at the switch.
    pub(super) switch: &'static str,
}

/// Sizes of one drawing, in its own units.
#[derive(Debug, Clone, Copy)]
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Room that each mark of the horizontal axis needs.
    mark: f64,
}

const WIDE: Frame =
    Frame { class: "wide", width: 1040.0, height: 290.0, left: 62.0, right: 14.0, top: 34.0, bottom: 34.0, mark: 80.0 };
const NARROW: Frame =
    Frame { class: "narrow", width: 400.0, height: 280.0, left: 50.0, right: 8.0, top: 34.0, bottom: 34.0, mark: 56.0 };

/// How wide a letter of a note is, at most on average.
const LETTER: f64 = 10.0;

/// Height of a rug's row.
const ROW: f64 = 18.0;

impl Chart {
    /// The plot with its title.
    pub(super) fn html(&self) -> String {
        format!(
            "<figure class=\"chart\"><figcaption>{}</figcaption>{}{}</figure>\n",
            escape(&self.title),
            self.draw(WIDE),
            self.draw(NARROW)
        )
    }

    fn draw(&self, mut frame: Frame) -> String {
        let base = frame.bottom;
        frame.bottom += ROW * self.rugs.len() as f64;
        frame.height += ROW * self.rugs.len() as f64;
        let Frame { class, width, height, left, right, top, bottom, .. } = frame;
        let (right, bottom) = (width - right, height - bottom);
        let x = |at: f64| left + (at - self.from) / (self.to - self.from) * (right - left);
        let y = |value: f64| bottom - self.scale.part(value) * (bottom - top);
        let mut svg = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" data-chart=\"{}\" \
             data-from=\"{}\" data-to=\"{}\" data-left=\"{left}\" data-right=\"{right}\">",
            escape(&self.summary),
            self.name,
            self.from,
            self.to
        );
        for value in self.scale.marks() {
            let at = y(value);
            put(&mut svg, format_args!("<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>"));
            let text = number(value);
            put(
                &mut svg,
                format_args!(
                    "<text class=\"mark\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                    left - 8.0,
                    at + 4.5
                ),
            );
        }
        put(
            &mut svg,
            format_args!(
                "<text class=\"mark unit\" x=\"{}\" y=\"14\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                self.vertical_unit
            ),
        );
        let axis = height - base + 18.0;
        for value in ticks(self.from, self.to, ((right - left) / frame.mark) as usize) {
            let (at, text) = (x(value), number(value));
            let text = if value > 0.0 { format!("+{text}") } else { text };
            put(&mut svg, format_args!("<path class=\"grid tick\" d=\"M{at:.1} {bottom}v5\"/>"));
            let (anchor, shown) = if at > right - 18.0 {
                ("end", format!("{text} {}", self.unit))
            } else {
                ("middle", format!("{text} {}", self.unit))
            };
            put(
                &mut svg,
                format_args!(
                    "<text class=\"mark\" x=\"{:.1}\" y=\"{axis:.1}\" text-anchor=\"{anchor}\">{shown}</text>",
                    at.min(right)
                ),
            );
        }
        for series in &self.series {
            put(&mut svg, format_args!("{}", series.draw(x, y, bottom, self.from, self.to)));
        }
        for note in &self.notes {
            let (middle, above) = (x(f64::midpoint(note.from, note.to)), self.highest(note));
            let at = (y(above) - 9.0).max(top + 12.0);
            // A note near an edge stays inside.
            let half = LETTER * note.text.chars().count() as f64 / 2.0;
            let middle = middle.min(right - half).max(left + half);
            put(
                &mut svg,
                format_args!(
                    "<text class=\"note {}\" x=\"{middle:.1}\" y=\"{at:.1}\" text-anchor=\"middle\">{}</text>",
                    note.class,
                    escape(&note.text)
                ),
            );
        }
        for (index, rug) in self.rugs.iter().enumerate() {
            let row = bottom + 6.0 + ROW * index as f64;
            let strokes: String = rug
                .at
                .iter()
                .filter(|at| (self.from..=self.to).contains(*at))
                .map(|&at| format!("M{:.1} {row:.1}v10", x(at)))
                .collect();
            put(&mut svg, format_args!("<path class=\"rug {}\" d=\"{strokes}\"/>", rug.class));
            let last = rug.at.iter().copied().filter(|at| *at <= self.to).fold(self.from, f64::max);
            put(
                &mut svg,
                format_args!(
                    "<text class=\"rugtext {}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    rug.class,
                    x(last) + 8.0,
                    row + 10.0,
                    escape(&rug.text)
                ),
            );
        }
        let zero = x(0.0);
        let anchor = if zero > (left + right) / 2.0 { ("end", zero - 7.0) } else { ("start", zero + 7.0) };
        put(&mut svg, format_args!("<path class=\"switch\" data-at=\"0\" d=\"M{zero:.1} 6V{bottom}\"/>"));
        put(
            &mut svg,
            format_args!(
                "<text class=\"switchtext\" x=\"{:.1}\" y=\"16\" text-anchor=\"{}\">{}</text>",
                anchor.1,
                anchor.0,
                escape(self.switch)
            ),
        );
        put(&mut svg, format_args!("<path class=\"cursor\" d=\"M0 {top}V{bottom}\"/></svg>"));
        svg
    }

    /// The highest value under a note.
    fn highest(&self, note: &Note) -> f64 {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.filter(|(at, _)| (note.from..=note.to).contains(at)).map(|&(_, value)| value).fold(0.0, f64::max)
    }
}

impl Series {
    fn draw(&self, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64, bottom: f64, from: f64, to: f64) -> String {
        let inside = self.points.iter().filter(|(at, _)| (from..=to).contains(at));
        let mut points = inside.map(|&(at, value)| (x(at), y(value))).peekable();
        let Some(&(first, _)) = points.peek() else { return String::new() };
        let class = self.class;
        if self.shape == Shape::Dots {
            let path: String = points.map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
            return format!("<path class=\"dots {class}\" d=\"{path}\"/>");
        }
        let points: Vec<_> = points.collect();
        let last = points.last().map_or(first, |point| point.0);
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let line = path.join("L");
        format!(
            "<path class=\"area {class}\" d=\"M{first:.1} {bottom}L{line}L{last:.1} {bottom}Z\"/>\
             <path class=\"line {class}\" d=\"M{line}\"/>"
        )
    }
}

impl Scale {
    /// A linear scale that has room for this and for a note above it.
    pub(super) fn up_to(highest: f64) -> Self {
        let step = step(highest.max(1e-9) * 1.12, 4);
        Self::Linear((highest.max(1e-9) * 1.12 / step).ceil() * step)
    }

    /// Decades that have room for all of these.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high <= 0.0 {
            return Self::Decades(0.1, 100.0);
        }
        let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        Self::Decades(low, if high > low { high } else { low * 10.0 })
    }

    /// How far up a value is, 0 to 1.
    fn part(self, value: f64) -> f64 {
        let part = match self {
            Self::Linear(highest) => value / highest,
            Self::Decades(low, high) => (value.max(low) / low).log10() / (high / low).log10(),
        };
        part.clamp(0.0, 1.0)
    }

    fn marks(self) -> Vec<f64> {
        match self {
            Self::Linear(highest) => ticks(0.0, highest, 4),
            Self::Decades(low, high) => {
                let decades = (high / low).log10().round() as i32;
                (0..=decades).map(|decade| low * 10_f64.powi(decade)).collect()
            }
        }
    }
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = svg.write_fmt(piece);
}

/// The multiples of a round step between two values, about so many.
fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let step = step(to - from, count.max(1));
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|multiple| multiple as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten: the smallest that makes at most so many steps of a span.
fn step(span: f64, count: usize) -> f64 {
    let least = span / count as f64;
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= least * 0.999).unwrap_or(power)
}

/// A number without needless digits, with a real minus.
fn number(value: f64) -> String {
    let text = format!("{:.4}", value.abs());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if value < 0.0 && text != "0" { format!("\u{2212}{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(ticks(-7.3, 12.1, 10), [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!(ticks(0.0, 14.0, 4), [0.0, 5.0, 10.0]);
        assert_eq!(Scale::up_to(12.4), Scale::Linear(15.0));
        assert_eq!(Scale::around([0.14, 20.5, 0.0].into_iter()), Scale::Decades(0.1, 100.0));
        assert_eq!(Scale::around(std::iter::empty()), Scale::Decades(0.1, 100.0));
        assert_eq!(Scale::Decades(0.1, 100.0).marks(), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!([0.1, -2.0, 0.0, 12.5].map(number), ["0.1", "\u{2212}2", "0", "12.5"]);
    }

    #[test]
    fn a_value_is_as_far_up_as_it_is_large() {
        assert_eq!(Scale::Linear(10.0).part(5.0), 0.5);
        assert_eq!(Scale::Linear(10.0).part(50.0), 1.0);
        assert!((Scale::Decades(0.1, 10.0).part(1.0) - 0.5).abs() < 1e-9);
        assert_eq!(Scale::Decades(0.1, 10.0).part(0.0), 0.0);
    }
}
