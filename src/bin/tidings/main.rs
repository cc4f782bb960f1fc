//! The `tidings` program.

use std::process::exit;

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == "guard") {
        let argv: Vec<_> = args.skip_while(|arg| arg == "--").collect();
        exit(tidings::worker::runner::guard::guard(&argv));
    }
}
