//! A program that is nothing but a shim: what the runtime's own tests start their sandboxes with.

fn main() {
    std::process::exit(if shim::is_shim() { shim::main() } else { 2 });
}
