//! Draws the live view into whatever room there is.
//!
//! The totals of the four paths are always there. Ports and drops come with 16 lines or more, columns of flows as the
//! width allows.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::rates::{FlowRate, bits, scaled};
use super::screen::Screen;

/// From so many lines on there is room for ports and drops.
const BLOCK_FROM: u16 = 16;

/// Lines of ports and drops below their header, on a screen of 24 lines; a third of what a higher one has more is theirs.
const BLOCK_LINES: u16 = 4;

/// From so many columns on ports and drops stand side by side.
const SIDE_BY_SIDE: u16 = 72;

/// The height of a bar, an eighth of a line each.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const KEYS: &str = "? help  q quit  s sort  r reverse  / filter  p path  space pause  + - interval";

const HELP: [&str; 17] = [
    "q, Ctrl-C   quit",
    "s           sort by rate, packets, total, source, destination",
    "r           the other way round",
    "/           filter: type words, Enter keeps them, Esc drops them",
    "p           one path only: endpoint, tunnel, internet, inside",
    "Esc         no filter, every path",
    "space       pause and go on",
    "+ -         longer and shorter interval",
    "up, down    scroll, also j k PageUp PageDown Home",
    "",
    "endpoint    over a service endpoint, straight to the service",
    "tunnel      through the gateway or an appliance",
    "internet    by the internet edge",
    "inside      in the network, its peers, and the platform",
    "",
    "Rates are both directions together. The node tells the fastest",
    "flows, so other orders and filters are among these.",
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let area = frame.area();
    let drawing = Drawing { screen, width: area.width };
    let ports = u16::try_from(screen.seen.ports.len().max(screen.seen.drops.len()).max(1)).unwrap_or(u16::MAX);
    let block =
        if area.height < BLOCK_FROM { 0 } else { 1 + ports.min(BLOCK_LINES + area.height.saturating_sub(24) / 3) };
    let [title, paths, block, flows, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(block),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(drawing.title()), title);
    frame.render_widget(Paragraph::new(drawing.paths()), paths);
    if area.width >= SIDE_BY_SIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(block);
        frame.render_widget(Paragraph::new(drawing.ports(left.width.saturating_sub(2))), left);
        frame.render_widget(Paragraph::new(drawing.drops(right.width)), right);
    } else {
        frame.render_widget(Paragraph::new(drawing.drops(block.width)), block);
    }
    frame.render_widget(Paragraph::new(drawing.flows(flows.height)), flows);
    frame.render_widget(Paragraph::new(drawing.foot()), foot);
    if screen.help {
        help(frame, area);
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let width = HELP.iter().map(|line| line.len()).max().unwrap_or_default() as u16 + 4;
    let (width, height) = (width.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let inside = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    let lines: Vec<_> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, inside);
    let block = Block::bordered().title(" sidestep top ").title_alignment(Alignment::Center);
    frame.render_widget(Paragraph::new(lines).block(block), inside);
}

struct Drawing<'a> {
    screen: &'a Screen,
    width: u16,
}

impl Drawing<'_> {
    /// The first line: which node, how many flows, how they are looked at, and what is wrong.
    fn title(&self) -> Line<'static> {
        let Screen { seen, interval, paused, problem, .. } = self.screen;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        if let Some(problem) = problem {
            let style = self.colour(Color::Red).add_modifier(Modifier::REVERSED);
            return Line::styled(fit(&format!(" {problem}; trying again "), self.width.into()), style);
        }
        let pause = if *paused { "PAUSED  " } else { "" };
        let noun = if seen.flows_total == 1 { "flow" } else { "flows" };
        let flows = if seen.is_sample() {
            format!("sample: {} of {} {noun}", seen.flows_known, seen.flows_total)
        } else {
            format!("{} {noun}", seen.flows_total)
        };
        let received = if seen.interval_seconds.is_some() {
            format!("in {}, {}", bits(seen.received.bits_per_second), packets(seen.received.packets_per_second))
        } else {
            "measuring".to_owned()
        };
        let text =
            format!("  {pause}{flows}  {received}  generation {}  every {} s", seen.generation, interval.as_secs_f64());
        Line::from(vec![Span::styled("sidestep", bold), Span::raw(text)])
    }

    /// The totals of each path, with what they were.
    fn paths(&self) -> Vec<Line<'static>> {
        let Screen { seen, history, path: only, .. } = self.screen;
        let about = if seen.is_sample() { "PATH~" } else { "PATH" };
        let head = format!("{about:<9}{:>11}{:>11}{:>8}  HISTORY", "RATE", "PACKETS/s", "FLOWS");
        let mut lines = vec![self.header(&head)];
        let room = usize::from(self.width).saturating_sub(41);
        let highest = history.iter().flat_map(|history| history.iter().rev().take(room)).copied().fold(0.0, f64::max);
        for (path, history) in seen.paths.iter().zip(history) {
            let style = self.path_style(path.path);
            let chosen = only.is_some_and(|only| only.name() == path.path);
            let name = if chosen { style.add_modifier(Modifier::REVERSED) } else { style };
            let numbers = format!(
                "{:>11}{:>11}{:>8}  ",
                bits(path.rate.bits_per_second),
                scaled(path.rate.packets_per_second, ""),
                path.flows
            );
            lines.push(Line::from(vec![
                Span::styled(path.path, name),
                Span::raw(format!("{:width$}{numbers}", "", width = 9 - path.path.len())),
                Span::styled(bars(history, room, highest), style),
            ]));
        }
        lines
    }

    fn ports(&self, width: u16) -> Vec<Line<'static>> {
        let name = usize::from(width).saturating_sub(24).max(4);
        let mut lines = vec![self.header(&fit(&format!("{:<name$}{:>12}{:>12}", "PORT", "IN", "OUT"), width.into()))];
        lines.extend(self.screen.seen.ports.iter().map(|port| {
            let (into, out) = (bits(port.received.bits_per_second), bits(port.sent.bits_per_second));
            Line::from(format!("{:<name$}{into:>12}{out:>12}", fit(&port.port, name.saturating_sub(1))))
        }));
        lines
    }

    fn drops(&self, width: u16) -> Vec<Line<'static>> {
        let name = usize::from(width).saturating_sub(17).max(4);
        let mut lines = vec![self.header(&fit(&format!("{:<name$}{:>8}{:>9}", "DROPS", "/s", "in all"), width.into()))];
        if self.screen.seen.drops.is_empty() {
            lines.push(Line::from("none"));
        }
        lines.extend(self.screen.seen.drops.iter().map(|drop| {
            let (rate, all) = (scaled(drop.packets_per_second, ""), scaled(drop.packets as f64, ""));
            let line = format!("{:<name$}{rate:>8}{all:>9}", fit(&drop.reason, name.saturating_sub(1)));
            let style = if drop.packets_per_second > 0.0 { self.colour(Color::Red) } else { Style::new() };
            Line::styled(line, style)
        }));
        lines
    }

    fn flows(&self, height: u16) -> Vec<Line<'static>> {
        let flows = self.screen.flows();
        let columns = Columns::of(self.width.into());
        let mut lines = vec![self.header(&columns.header())];
        let room = usize::from(height).saturating_sub(1);
        let scroll = self.screen.scroll.min(flows.len().saturating_sub(room));
        lines.extend(flows.into_iter().skip(scroll).take(room).map(|flow| {
            let [path, rest] = columns.line(flow);
            Line::from(vec![Span::styled(path, self.path_style(&flow.path)), Span::raw(rest)])
        }));
        lines
    }

    /// The last line: what is chosen, or the keys.
    fn foot(&self) -> Line<'static> {
        let Screen { typing, filter, sort, reverse, path, .. } = self.screen;
        if *typing {
            return Line::from(format!("filter: {filter}_   Enter keeps it, Esc drops it"));
        }
        let order = if *reverse { ", reversed" } else { "" };
        let mut chosen = format!("by {}{order}", sort.name());
        if let Some(path) = path {
            chosen.push_str(&format!("  {} only", path.name()));
        }
        if !filter.is_empty() {
            chosen.push_str(&format!("  filter: {filter}"));
        }
        let dim = Style::new().add_modifier(Modifier::DIM);
        Line::from(vec![Span::raw(chosen + "  "), Span::styled(KEYS, dim)])
    }

    fn header(&self, text: &str) -> Line<'static> {
        let width = usize::from(self.width);
        Line::styled(fit(text, width), Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
    }

    fn path_style(&self, path: &str) -> Style {
        self.colour(match path {
            "endpoint" => Color::Cyan,
            "tunnel" => Color::Yellow,
            "internet" => Color::Magenta,
            _ => Color::Green,
        })
    }

    fn colour(&self, colour: Color) -> Style {
        if self.screen.colours { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Which columns of flows there are, and how wide.
struct Columns {
    path: usize,
    /// Columns that come with the width.
    protocol: bool,
    source: usize,
    destination: usize,
    seen: usize,
    egress: usize,
    packets: bool,
    total: bool,
}

impl Columns {
    fn of(width: usize) -> Self {
        let path = if width < 40 { 4 } else { 9 };
        let rate = 11;
        let mut columns = Self {
            path,
            protocol: width >= 60,
            source: 0,
            destination: 0,
            seen: 0,
            egress: 0,
            packets: false,
            total: false,
        };
        let mut room = width.saturating_sub(path + rate);
        let mut take = |wanted: usize, from: usize| {
            let taken = width >= from;
            if taken {
                room = room.saturating_sub(wanted);
            }
            taken
        };
        take(6, 60);
        columns.packets = take(9, 80);
        columns.total = take(11, 110);
        columns.egress = if take(14, 100) { 14 } else { 0 };
        // An IPv6 address with its port is 47 wide at most, and mostly half of that.
        let addresses = if width >= 130 {
            3
        } else if width >= 56 {
            2
        } else {
            1
        };
        let each = room / addresses;
        columns.destination = room - each * (addresses - 1);
        columns.source = if addresses > 1 { each } else { 0 };
        columns.seen = if addresses > 2 { each } else { 0 };
        columns
    }

    fn header(&self) -> String {
        let [path, rest] =
            self.cells("PATH", ["PROTO", "SOURCE", "DESTINATION", "SEEN AS", "TO", "RATE", "PKT/s", "TOTAL"]);
        path + &rest
    }

    fn line(&self, rate: &FlowRate) -> [String; 2] {
        let flow = &rate.flow;
        let total = flow.bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let seen = if flow.presented == flow.source { "=" } else { &flow.presented };
        self.cells(
            &rate.path,
            [
                &flow.protocol,
                &flow.source,
                &flow.destination,
                seen,
                &flow.egress,
                &bits(rate.rate.bits_per_second),
                &scaled(rate.rate.packets_per_second, ""),
                &scaled(total as f64, "B"),
            ],
        )
    }

    fn cells(&self, path: &str, cells: [&str; 8]) -> [String; 2] {
        let [protocol, source, destination, seen, egress, rate, packets, total] = cells;
        let left = |text: &str, width: usize| match width {
            0 => String::new(),
            width => format!("{:<width$}", fit(text, width - 1)),
        };
        let mut line = left(protocol, if self.protocol { 6 } else { 0 });
        for (text, width) in
            [(source, self.source), (destination, self.destination), (seen, self.seen), (egress, self.egress)]
        {
            line.push_str(&left(text, width));
        }
        line.push_str(&format!("{rate:>11}"));
        if self.packets {
            line.push_str(&format!("{packets:>9}"));
        }
        if self.total {
            line.push_str(&format!("{total:>11}"));
        }
        [left(path, self.path), line]
    }
}

fn packets(rate: f64) -> String {
    format!("{} packets/s", scaled(rate, ""))
}

/// A text that is no wider; what does not fit ends in `…`.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// The newest values as bars, the newest on the right. All paths have the same scale.
fn bars(history: &VecDeque<f64>, room: usize, highest: f64) -> String {
    let newest = history.iter().skip(history.len().saturating_sub(room));
    newest
        .map(|value| {
            if *value <= 0.0 || highest <= 0.0 {
                return ' ';
            }
            let eighth = (value / highest * BARS.len() as f64).ceil() as usize;
            BARS[eighth.clamp(1, BARS.len()) - 1]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::top::rates::Seen;
    use crate::cli::top::rates::tests::answers;
    use crate::control::top::TopAnswer;
    use crate::path::kind::PathKind;

    fn screen() -> Screen {
        let [before, now] = answers();
        let mut screen = Screen { interval: Duration::from_secs(1), ..Screen::default() };
        let mut tunnel = now.clone();
        for (path, carried) in [("endpoint", 0), ("tunnel", 125_000_000)] {
            tunnel.paths.get_mut(path).expect("path").carried.bytes = [carried, 0];
        }
        screen.take(Seen::of(Some(&before), &tunnel));
        screen.take(Seen::of(Some(&before), &tunnel));
        screen.take(Seen::of(Some(&before), &now));
        screen
    }

    fn terminal(screen: &Screen, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("terminal");
        terminal.draw(|frame| draw(frame, screen)).expect("draws");
        terminal
    }

    fn text(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let terminal = terminal(screen, width, height);
        let buffer = terminal.backend().buffer();
        (0..height)
            .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn eighty_by_twenty_four_shows_everything() {
        assert_eq!(
            text(&screen(), 80, 24),
            [
                "sidestep  4 flows  in 1.00 Gb/s, 1.00 k packets/s  generation 3  every 1 s",
                "PATH            RATE  PACKETS/s   FLOWS  HISTORY",
                "endpoint   1.00 Gb/s      125 k       1    █",
                "tunnel      100 Mb/s     12.5 k       1  ▄▄▁",
                "internet   10.0 Mb/s     1.25 k       1  ▁▁▁",
                "inside     4.00 kb/s       0.50       1  ▁▁▁",
                "PORT                            IN         OUT  DROPS                /s   in all",
                "vm1                      1.00 Gb/s   2.00 Gb/s  spoofed              25       60",
                "gateway                   100 Mb/s    200 Mb/s  nsg_denied            2      104",
                "                                                no_route              0        7",
                "PATH     PROTO SOURCE                DESTINATION                   RATE    PKT/s",
                "endpoint tcp   10.1.1.4:40000        20.60.1.10:443           1.00 Gb/s    125 k",
                "tunnel   tcp   10.1.1.4:40000        198.51.100.80:80          100 Mb/s   12.5 k",
                "internet tcp   10.1.1.4:40000        192.0.2.7:443            10.0 Mb/s   1.25 k",
                "inside   tcp   10.1.1.4:40000        10.1.1.5:5432            4.00 kb/s     0.50",
                "",
                "",
                "",
                "",
                "",
                "",
                "",
                "",
                "by rate  ? help  q quit  s sort  r reverse  / filter  p path  space pause  + - i",
            ]
        );
    }

    #[test]
    fn a_wide_screen_has_more_columns() {
        let lines = text(&screen(), 140, 30);
        let header = lines.iter().find(|line| line.contains("SEEN AS")).expect("header");
        let words: Vec<_> = header.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(words, ["PATH", "PROTO SOURCE", "DESTINATION", "SEEN AS", "TO", "RATE", "PKT/s", "TOTAL"]);
        let internet = lines.iter().rfind(|line| line.starts_with("internet")).expect("flow");
        assert!(internet.contains("203.0.113.200:1024") && internet.contains("7.50 MB"), "{internet}");
    }

    #[test]
    fn a_small_screen_keeps_the_totals_and_what_a_flow_is() {
        assert_eq!(
            text(&screen(), 40, 10),
            [
                "sidestep  4 flows  in 1.00 Gb/s, 1.00 k",
                "PATH            RATE  PACKETS/s   FLOWS…",
                "endpoint   1.00 Gb/s      125 k       1",
                "tunnel      100 Mb/s     12.5 k       1",
                "internet   10.0 Mb/s     1.25 k       1",
                "inside     4.00 kb/s       0.50       1",
                "PATH     DESTINATION                RATE",
                "endpoint 20.60.1.10:443        1.00 Gb/s",
                "tunnel   198.51.100.80:80       100 Mb/s",
                "by rate  ? help  q quit  s sort  r rever",
            ]
        );
        // Whatever there is, nothing breaks.
        for (width, height) in [(1, 1), (3, 2), (12, 5), (30, 16), (71, 17), (300, 100)] {
            let mut screen = screen();
            terminal(&screen, width, height);
            screen.help = true;
            terminal(&screen, width, height);
        }
    }

    #[test]
    fn states_are_said_in_words() {
        let mut screen = screen();
        screen.paused = true;
        screen.path = Some(PathKind::Endpoint);
        screen.filter = "443".to_owned();
        let lines = text(&screen, 80, 24);
        assert!(lines[0].starts_with("sidestep  PAUSED  4 flows"), "{}", lines[0]);
        assert!(lines[23].starts_with("by rate  endpoint only  filter: 443  ? help"), "{}", lines[23]);
        assert_eq!(lines.iter().filter(|line| line.contains("tcp")).count(), 1);
        screen.typing = true;
        assert_eq!(text(&screen, 80, 24)[23], "filter: 443_   Enter keeps it, Esc drops it");
        screen.problem = Some("no node runs on /run/x.sock".to_owned());
        assert_eq!(text(&screen, 80, 24)[0], " no node runs on /run/x.sock; trying again");
        screen.help = true;
        assert!(text(&screen, 80, 24).join("\n").contains("pause and go on"));

        let [_, now] = answers();
        let mut screen = Screen::default();
        screen.take(Seen::of(None, &TopAnswer { interval_ms: None, flows_total: 1_000_000, ..now }));
        let lines = text(&screen, 80, 24);
        assert!(lines[0].starts_with("sidestep  sample: 4 of 1000000 flows  measuring"), "{}", lines[0]);
        assert!(lines[1].starts_with("PATH~"), "{}", lines[1]);
    }

    #[test]
    fn without_colours_there_is_none() {
        let coloured = |colours: bool| {
            let screen = Screen { colours, ..screen() };
            let terminal = terminal(&screen, 80, 24);
            terminal.backend().buffer().content.iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert_eq!(coloured(false), 0);
        assert!(coloured(true) > 20);
    }
}
