//! Plots of throughput against size.

use plotters::prelude::*;

use super::{folder, grouped};

/// A line of a plot.
#[derive(Debug)]
pub(crate) struct Curve {
    /// What the legend calls it.
    pub(crate) name: &'static str,
    /// Sizes and values, by size.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Values against sizes: sizes by their logarithm, values from 0 on.
#[derive(Debug)]
pub(crate) struct Plot {
    /// The file's name without `.svg`.
    pub(crate) name: &'static str,
    /// What stands above.
    pub(crate) title: &'static str,
    /// What sizes count.
    pub(crate) sizes: &'static str,
    /// What values are, with their unit.
    pub(crate) values: &'static str,
    /// The lines.
    pub(crate) curves: Vec<Curve>,
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

impl Plot {
    /// Writes it beside `bench.json`.
    pub(crate) fn save(&self) {
        let file = folder().join(format!("{}.svg", self.name));
        let area = SVGBackend::new(&file, (800, 450)).into_drawing_area();
        self.draw(&area).expect("draw a plot");
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, plotters::coord::Shift>) -> Result<(), DrawingError<B>> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).copied();
        let smallest = points().map(|(size, _)| size).fold(f64::INFINITY, f64::min);
        let largest = points().map(|(size, _)| size).fold(smallest, f64::max);
        let highest = points().map(|(_, value)| value).fold(0.0, f64::max);
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 20))
            .margin(16)
            .margin_right(40)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((smallest..largest * 1.01).log_scale(), 0.0..highest * 1.3)?;
        chart
            .configure_mesh()
            .x_desc(self.sizes)
            .y_desc(self.values)
            .x_label_formatter(&|size| grouped(size.round() as u64))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 14))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()
    }
}

type DrawingError<B> = DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>;
