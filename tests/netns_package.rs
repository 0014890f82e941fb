//! The Debian package: built twice it is the same, and it can be installed, run as its unit says, pinged through, removed and
//! purged, in a copy of this system.
//!
//! Needs root, /dev/net/tun, dpkg and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/lab.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::privileged_with;

/// Runs a script of the project, which must succeed, and gives what it prints.
#[track_caller]
fn script(name: &str, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let mut command = Command::new(path);
    // The program under test is large; how well it is compressed is not what is tested.
    command.args(arguments).env("DPKG_DEB_COMPRESSOR_LEVEL", "0").env("SOURCE_DATE_EPOCH", "1760000000");
    let output = command.output().expect("run the script");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/{name}: {}\n{out}{errors}", output.status);
    out.into_owned()
}

/// Packs the program under test into a folder.
fn package(folder: &Path) -> PathBuf {
    let folder = folder.to_str().expect("text");
    let out = script("package", &["--binary", env!("CARGO_BIN_EXE_sidestep"), "--output", folder]);
    PathBuf::from(out.lines().last().expect("a line"))
}

#[test]
fn the_package_is_reproducible_and_leaves_nothing_behind() {
    if !privileged_with(&["dpkg", "dpkg-deb", "deb-systemd-helper", "objdump", "setpriv", "systemd-analyze"]) {
        return;
    }
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [first, second] = folders.each_ref().map(|folder| package(folder.path()));
    assert!(fs::read(&first).expect("read") == fs::read(&second).expect("read"), "two builds differ");
    let out = script("packaging/try", &[first.to_str().expect("text")]);
    for step in ["== ExecStart", "3 received, 0% packet loss", "== ExecReload", "flows restored", "== Nothing is left"]
    {
        assert!(out.contains(step), "no {step}: {out}");
    }
}
