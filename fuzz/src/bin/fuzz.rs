//! An engine that makes inputs for one target: libFuzzer, which looks at what code an input reaches. `scripts/fuzz` builds
//! it with the instrumentation that this needs, and says what it is told.
#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use quorumgate_fuzz::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("QUORUMGATE_FUZZ").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| panic!("QUORUMGATE_FUZZ is {name:?}; it is one of {}", Target::names()))
});

fuzz_target!(|input: &[u8]| (TARGET.check)(input));
