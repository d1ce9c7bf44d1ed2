//! The binary finds libtorch by an rpath: link arguments of a dependency's build script do not reach it.
fn main() {
    println!("cargo:rerun-if-env-changed=DEP_SEGSLURM_NATIVE_LIBDIR");
    if let Ok(directory) = std::env::var("DEP_SEGSLURM_NATIVE_LIBDIR") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
        if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
            // libtorch_cuda finds NVIDIA's libraries by its own rpath, which the linker does not follow.
            println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
        }
    }
}
