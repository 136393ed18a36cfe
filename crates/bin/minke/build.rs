//! How the program is linked.

fn main() {
    // Not moved about at start, the tables of the API need no relocation: they stay clean pages of the file, shared by
    // the server, its supervisor and the shims.
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
