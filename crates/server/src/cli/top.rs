//! `millpond top`: the queues, live. Plain escape codes: home, draw, clear the rest.

use super::{
    Context, Failure,
    options::span,
    print::{self, Style},
    queues::{fetch_all, overview},
};
use crate::client::Queue;
use clap::Args;
use kit::Millis;
use std::{
    collections::HashMap,
    io::{IsTerminal, Read},
    time::{Duration, Instant},
};

/// The queues, live; q or Ctrl-C ends it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  millpond top\n  millpond top --every 5s\n  millpond top --once")]
pub(crate) struct Top {
    /// How often to look
    #[arg(long, value_parser = span, default_value = "1s", value_name = "SPAN")]
    every: Millis,
    /// Look twice, print once, end: for scripts
    #[arg(long)]
    once: bool,
}

/// Totals at one moment, to see how fast they move.
struct Reading {
    at: Instant,
    totals: HashMap<String, (u64, u64)>,
}

impl Reading {
    fn of(queues: &[Queue]) -> Self {
        let totals = queues
            .iter()
            .map(|queue| (queue.name.clone(), (queue.pushed_total, queue.completed_total)))
            .collect();
        Self { at: Instant::now(), totals }
    }

    fn rates(&self, later: &Reading, name: &str) -> (f64, f64) {
        let seconds = later.at.duration_since(self.at).as_secs_f64().max(0.001);
        let (Some(before), Some(after)) = (self.totals.get(name), later.totals.get(name)) else {
            return (0.0, 0.0);
        };
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        (rate(before.0, after.0), rate(before.1, after.1))
    }
}

/// The terminal while the table is on it: another screen, no cursor; put back whatever happens.
struct Screen;

impl Screen {
    fn enter() -> Self {
        print::put("\x1b[?1049h\x1b[?25l");
        Self
    }

    fn draw(text: &str) {
        let text = text.replace('\n', "\x1b[K\n");
        print::put(&format!("\x1b[H{text}\x1b[J"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print::put("\x1b[?25h\x1b[?1049l");
    }
}

impl Top {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let every = Duration::from_millis(self.every.max(100));
        let queues = fetch_all(&context.client).await?;
        let mut before = Reading::of(&queues);
        if self.once || !std::io::stdout().is_terminal() {
            tokio::time::sleep(every).await;
            let queues = fetch_all(&context.client).await?;
            print::put(&frame(context.style, context.client.url(), &queues, &before, &Reading::of(&queues)));
            return Ok(());
        }
        let _screen = Screen::enter();
        let mut quit = quit_key();
        let mut queues = queues;
        loop {
            let reading = Reading::of(&queues);
            Screen::draw(&frame(context.style, context.client.url(), &queues, &before, &reading));
            before = reading;
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
                _ = quit.recv() => return Ok(()),
            }
            queues = match fetch_all(&context.client).await {
                Ok(queues) => queues,
                Err(error) if error.retry_after_ms().is_some() => {
                    Screen::draw(&format!("{}\n", context.style.bad(&print::clean(&error.to_string()))));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
        }
    }
}

fn frame(style: Style, url: &str, queues: &[Queue], before: &Reading, now: &Reading) -> String {
    let rates = |queue: &Queue| before.rates(now, &queue.name);
    let (pushed, done) =
        queues.iter().map(&rates).fold((0.0, 0.0), |sum, rate| (sum.0 + rate.0, sum.1 + rate.1));
    let head = format!(
        "{}  {} queues  in {}/s  done {}/s  {}\n\n",
        style.bold(url),
        queues.len(),
        print::count(pushed as u64),
        print::count(done as u64),
        style.dim("q ⏎ or Ctrl-C ends")
    );
    let mut busiest = queues.to_vec();
    busiest.sort_by_key(|queue| std::cmp::Reverse(queue.live()));
    let shown = busiest.len().min(40);
    let more = busiest.len() - shown;
    let mut out = head + &overview(style, &busiest[..shown], print::now(), Some(&rates));
    if more > 0 {
        out.push_str(&style.dim(&format!("and {more} quieter queues\n")));
    }
    out
}

/// A message when q was typed. The terminal keeps its line mode, so that nothing has to be restored after a kill.
fn quit_key() -> tokio::sync::mpsc::Receiver<()> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for byte in std::io::stdin().lock().bytes() {
            match byte {
                Ok(b'q' | b'Q') => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let _ = sender.blocking_send(());
    });
    receiver
}
