//! The program finds the libtorch that segslurm was built with by an rpath, which does not come
//! with a dependency.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by variables")]

fn main() {
    if let Ok(folder) = std::env::var("DEP_SEGSLURM_LIBDIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder},--allow-shlib-undefined");
    }
}
