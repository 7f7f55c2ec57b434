//! A real file system, ext4 or XFS, in an image file, whose power can be cut and which can be made to stand still.
//!
//! It needs root, loop devices, `mkfs.ext4` or `mkfs.xfs`, `fsfreeze` and `python3`; whoever asks for a disk where
//! one of them is missing is told what, and says so. Nothing of a disk outlives its value, also when
//! a test fails: it is thawed, unmounted, and its loop device is given back.
//!
//! A cut drops everything that was not synced. It does not tear sectors, reorder writes inside the
//! device or play a drive that lies about a flush; the simulated disk of the storage tests does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Waits for a line, then shuts the file system down without writing its journal (the ioctl
/// `XFS_IOC_GOINGDOWN` with `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`, which ext4 calls `EXT4_IOC_SHUTDOWN` and gave
/// the same numbers), and says when it began to. Without a line
/// it does nothing.
const CUT: &str = "
import fcntl, os, struct, sys, time
mount = os.open(sys.argv[1], os.O_RDONLY)
print('armed', flush=True)
if sys.stdin.readline():
    at_ms = time.time_ns() // 1000000
    fcntl.ioctl(mount, 0x8004587d, struct.pack('I', 2))
    print(at_ms, flush=True)
";

/// Freezes the file system until its input ends, which it also does when the test is killed.
const FREEZE: &str = "fsfreeze -f \"$0\" && echo frozen && cat >/dev/null; fsfreeze -u \"$0\"";

/// Which file system is on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// The command that makes one in a file.
    fn maker(self) -> Command {
        let (program, options): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        };
        let mut command = Command::new(program);
        command.args(options);
        command
    }
}

/// A mounted disk.
pub struct LoopDisk {
    at: PathBuf,
    image: PathBuf,
    _home: tempfile::TempDir,
}

impl LoopDisk {
    /// Makes and mounts one with ext4; the text says why there can be none.
    pub fn make(bytes: u64) -> Result<Self, String> {
        Self::make_as(FileSystem::Ext4, bytes)
    }

    /// Makes and mounts one; the text says why there can be none. XFS takes 300 MiB at least.
    pub fn make_as(kind: FileSystem, bytes: u64) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let home = tempfile::tempdir().map_err(text)?;
        let (image, at) = (home.path().join("image"), home.path().join("mount"));
        fs::create_dir(&at).map_err(text)?;
        fs::File::create(&image).and_then(|file| file.set_len(bytes)).map_err(text)?;
        run(kind.maker().arg(&image))?;
        mount(&image, &at)?;
        Ok(Self { at, image, _home: home })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The bytes that still fit.
    pub fn free_bytes(&self) -> u64 {
        let df =
            Command::new("df").args(["--output=avail", "-B1"]).arg(&self.at).output().expect("df");
        let text = String::from_utf8(df.stdout).expect("text");
        text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number of bytes")
    }

    /// Gets ready to cut the power, so that the cut itself takes no time.
    pub fn arm(&self) -> Result<Switch, String> {
        let mut command = Command::new("python3");
        command.args(["-c", CUT]).arg(&self.at);
        Helper::start(command, "armed").map(Switch)
    }

    /// Lets every write and sync wait until the value returned is dropped.
    pub fn freeze(&self) -> Result<Frozen, String> {
        let mut command = Command::new("sh");
        command.args(["-c", FREEZE]).arg(&self.at);
        Helper::start(command, "frozen").map(|helper| Frozen { _helper: helper })
    }

    /// Power comes back: what was not on the disk is gone, and the journal is replayed. Nobody may
    /// have a file of it open.
    pub fn restart(&mut self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.at))?;
        mount(&self.image, &self.at)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // A mount that is still in use, because a test failed, goes when its last user does.
        let gone = run(Command::new("umount").arg(&self.at))
            .or_else(|_| run(Command::new("umount").arg("--lazy").arg(&self.at)));
        if let Err(error) = gone {
            eprintln!("{} stays mounted: {error}", self.at.display());
        }
    }
}

/// A loop mount gives its loop device back when it is unmounted.
fn mount(image: &Path, at: &Path) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {said}"))
}

/// Cuts the power once.
pub struct Switch(Helper);

impl Switch {
    /// Cuts it, and says when that began, in Unix milliseconds. From the return on nothing reaches
    /// the disk.
    pub fn cut(mut self) -> u64 {
        let told = self.0.child.stdin.take().expect("a pipe").write_all(b"now\n");
        told.expect("a helper that waits");
        let status = self.0.child.wait().expect("a child of our own");
        assert!(status.success(), "the power could not be cut: {status}");
        self.0.line().ok().and_then(|line| line.parse().ok()).expect("a time")
    }
}

/// While it lives the disk stands still.
pub struct Frozen {
    _helper: Helper,
}

/// A child that says it is ready and waits for its input; it ends when that ends.
struct Helper {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Helper {
    fn start(mut command: Command, ready: &str) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut helper = Self { child, said };
        match helper.line() {
            Ok(line) if line == ready => Ok(helper),
            other => Err(format!("{command:?} said {other:?} instead of `{ready}`")),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a helper of the disk is left behind: {error}");
        }
    }
}
