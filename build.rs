//! The binary finds libtorch by an rpath: link arguments of a dependency's build script do not
//! reach it.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by variables")]
fn main() {
    println!("cargo:rerun-if-env-changed=DEP_SEGSLURM_NATIVE_LIBDIR");
    println!("cargo:rerun-if-env-changed=DEP_SEGSLURM_NATIVE_CUDA");
    if let Ok(directory) = std::env::var("DEP_SEGSLURM_NATIVE_LIBDIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
        println!("cargo:LIBDIR={directory}");
        if std::env::var("DEP_SEGSLURM_NATIVE_CUDA").is_ok_and(|it| it == "1") {
            // libtorch_cuda finds NVIDIA's libraries by its own rpath, which the linker does not
            // follow.
            println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
        }
    }
}
