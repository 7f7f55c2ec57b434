//! What the kernel says of this process. Where it says nothing, nothing is shown.

use std::fs;

/// Clock ticks a second in `/proc`, which Linux fixes at 100 for user space (proc_pid_stat(5)).
const TICKS_PER_S: f64 = 100.0;

/// What the process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// How many files it may open.
    pub open_files_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Processor time used, in seconds.
    pub cpu_s: Option<f64>,
}

impl ProcessUse {
    /// Asks the kernel.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |field| status_number(&status, field).map(|number| number * 1024);
        Self {
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            threads: status_number(&status, "Threads:"),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            open_files_max: fs::read_to_string("/proc/self/limits")
                .ok()
                .and_then(|text| files_max(&text)),
            cpu_s: fs::read_to_string("/proc/self/stat").ok().and_then(|text| cpu_s(&text)),
        }
    }
}

fn status_number(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// User plus system time. The program's name, in parentheses, may hold anything.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(status_number("Name:\tx\nVmRSS:\t  123 kB\n", "VmRSS:"), Some(123));
        let limits = "Max open files            1024                 4096                 files\n";
        assert_eq!(files_max(limits), Some(1024));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu_s(stat), Some(2.0));
    }

    #[test]
    fn what_the_kernel_does_not_say_is_absent() {
        assert_eq!(cpu_s("nonsense"), None);
        assert_eq!(status_number("", "VmRSS:"), None);
    }
}
