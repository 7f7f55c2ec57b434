//! How far long work is: a bar on a terminal, plain lines elsewhere. Both on standard error, so that
//! results can be piped.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::jobs::JobStatus;

/// After so many looks at a job a line is printed where there is no terminal: about two seconds.
const LOOKS_PER_LINE: u32 = 20;

/// Shows one job.
pub struct Display {
    bar: Option<ProgressBar>,
    step: String,
    looks: u32,
}

impl Display {
    /// Nothing shown yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(new_bar);
        Self { bar, step: String::new(), looks: 0 }
    }

    /// Shows how far the job is now.
    pub fn show(&mut self, status: &JobStatus) {
        if status.outcome.is_some() {
            if let Some(bar) = &self.bar {
                bar.finish_and_clear();
            }
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.set_length(status.total);
                bar.set_position(status.done);
                bar.set_message(status.step.clone());
                bar.tick();
            }
            None => self.print(status),
        }
    }

    fn print(&mut self, status: &JobStatus) {
        let is_new = self.step != status.step;
        let is_due = self.looks.is_multiple_of(LOOKS_PER_LINE);
        self.looks += 1;
        if status.step.is_empty() || !(is_new || is_due) {
            return;
        }
        self.step.clone_from(&status.step);
        output::complain(&line(status));
    }
}

fn line(status: &JobStatus) -> String {
    match (status.done, status.total) {
        (0, 0) => status.step.clone(),
        (done, 0) => format!("{}: {done}", status.step),
        (done, total) => format!("{}: {done} of {total}", status.step),
    }
}

fn new_bar() -> ProgressBar {
    let template = "{msg:30} [{bar:30}] {pos}/{len} {elapsed}";
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let status = |done, total| JobStatus {
            job: 1,
            step: "reading".to_owned(),
            done,
            total,
            outcome: None,
        };
        assert_eq!(line(&status(0, 0)), "reading");
        assert_eq!(line(&status(7, 0)), "reading: 7");
        assert_eq!(line(&status(7, 9)), "reading: 7 of 9");
    }
}
