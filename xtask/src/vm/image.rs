//! The emulated machine's only file system: a kernel's modules, programs of this machine and their libraries.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::programs;
use crate::setup::find;

/// What tests and init run.
const PROGRAMS: [&str; 7] =
    ["busybox", "ip", "nft", "redis-server", "tcpdump", "arping", "setpriv"];
/// Parts of the kernel's modules that namespaces, bridges, nftables and socket diagnosis are in.
const MODULES: [&str; 6] = [
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    "kernel/arch",
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/net/dummy.ko",
];

/// An initramfs that is being put together.
pub(super) struct Image {
    dir: PathBuf,
    kernel: PathBuf,
}

impl Image {
    /// Fetches and unpacks Debian's kernel, and begins a tree with its modules and [`PROGRAMS`].
    pub(super) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (kernel, release) = unpack_kernel(dir)?;
        println!("vm: kernel {release}");
        let image = Image { dir: dir.to_owned(), kernel };
        let tree = image.tree();
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        for name in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "tests", "etc"] {
            fs::create_dir_all(tree.join(name))?;
        }
        image.add_text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")?;
        image.add_modules(&release)?;
        for program in PROGRAMS {
            let path = find(program).with_context(|| format!("{program} is missing"))?;
            image.add_program(&path, &Path::new("bin").join(program))?;
        }
        // The kernel loads modules by this path.
        symlink("../bin/busybox", tree.join("sbin/modprobe"))?;
        Ok(image)
    }

    pub(super) fn add_text(&self, path: &str, text: &str) -> Result<()> {
        let path = self.tree().join(path);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A program of ours below `/tests`, without its debug information.
    pub(super) fn add_test(&self, path: &Path, name: &str) -> Result<()> {
        let place = Path::new("tests").join(name);
        self.add_program(path, &place)?;
        programs::run(Command::new("strip").arg(self.tree().join(place)))
    }

    /// Kernel and finished initramfs.
    pub(super) fn finish(self) -> Result<(PathBuf, PathBuf)> {
        let archive = self.dir.join("initramfs.cpio");
        // Not compressed: unpacking is what the emulated machine is slow at.
        let pack = "find . | busybox cpio -o -H newc > ../initramfs.cpio";
        programs::run(Command::new("sh").args(["-c", pack]).current_dir(self.tree()))?;
        Ok((self.kernel, archive))
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    fn add_modules(&self, release: &str) -> Result<()> {
        let from = self.dir.join("kernel/lib/modules").join(release);
        let to = self.tree().join("lib/modules").join(release);
        fs::create_dir_all(&to)?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--parents", "modules.order", "modules.builtin"]).args(MODULES);
        programs::run(copy.arg(&to).current_dir(&from))?;
        programs::run(Command::new("busybox").arg("depmod").arg("-b").arg(self.tree()).arg(release))
    }

    /// A program and the shared libraries that it names.
    fn add_program(&self, path: &Path, place: &Path) -> Result<()> {
        copy_to(path, &self.tree().join(place))?;
        let listed = Command::new("ldd").arg(path).output().context("run ldd")?;
        // Of a static program ldd says that it is none of its business.
        for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let Some(inside) = word.strip_prefix('/') else { continue };
            let target = self.tree().join(inside);
            if !target.exists() {
                copy_to(Path::new(word), &target)?;
            }
        }
        Ok(())
    }
}

fn copy_to(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

/// The kernel's file and its release, of the package that `linux-image-cloud-amd64` stands for now.
fn unpack_kernel(dir: &Path) -> Result<(PathBuf, String)> {
    let depends =
        Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output()?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .context(
            "apt knows no linux-image-cloud-amd64: this needs Debian, after `apt-get update`",
        )?;
    let unpacked = dir.join("kernel");
    let kernel = unpacked.join("boot").join(format!("vmlinuz-{package}"));
    if !kernel.exists() {
        let name = format!("linux-image-{package}");
        programs::run(Command::new("apt-get").args(["download", &name]).current_dir(dir))?;
        let archive = fs::read_dir(dir)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|found| found.to_string_lossy().starts_with(&format!("{name}_")))
            })
            .context("apt-get downloaded nothing")?;
        programs::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
        fs::remove_file(archive)?;
    }
    ensure!(kernel.exists(), "no kernel in {}", unpacked.display());
    Ok((kernel, package.to_owned()))
}
