//! Compiles the C++ shim against the libtorch that torch-sys uses, after checking that it is one
//! that was tested.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by variables")]

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The PyTorch versions this project is tested with, as (major, minor), both ends included.
const OLDEST: (u32, u32) = (2, 9);
const NEWEST: (u32, u32) = (2, 11);

const SOURCES: [&str; 10] = [
    "cpp/collective.cpp",
    "cpp/cuda.cpp",
    "cpp/device.cpp",
    "cpp/dispatch.cpp",
    "cpp/label_map.cpp",
    "cpp/memory.cpp",
    "cpp/pixel_loss.cpp",
    "cpp/pixel_loss_cuda.cpp",
    "cpp/profile.cpp",
    "cpp/tensor.cpp",
];

/// Headers of CUDA and NCCL that the CUDA half is compiled with, one of each package, and where
/// those who have no wheels keep them.
const CUDA_HEADERS: [&str; 6] = [
    "cuda_runtime_api.h",
    "crt/host_defines.h",
    "nv/target",
    "cublas_v2.h",
    "cusolverDn.h",
    "nccl.h",
];
const CUDA_ROOTS: [&str; 8] = [
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_ROOT",
    "CUDA_TOOLKIT_ROOT_DIR",
    "NCCL_HOME",
    "NCCL_ROOT",
    "NCCL_ROOT_DIR",
    "EBROOTNCCL",
];

struct Libtorch {
    includes: Vec<PathBuf>,
    libraries: PathBuf,
}

fn main() {
    for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB", "CPATH"]
        .iter()
        .chain(&CUDA_ROOTS)
    {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=cpp");

    let libtorch = find();
    check_version(&libtorch);

    // What libtorch has, the program has: there is no switch that could be forgotten.
    let cuda = libtorch.libraries.join("libtorch_cuda.so").exists();
    let mut build = cc::Build::new();
    // Kernels are what this is for, whatever the profile of the rest.
    build
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .include("cpp/gloo_stub")
        .define("USE_C10D_GLOO", None);
    for include in &libtorch.includes {
        // System headers: libtorch's own warnings are not ours to mend.
        build.flag("-isystem").flag(include.to_str().expect("libtorch's path is not UTF-8"));
    }
    if cuda {
        build.define("USE_C10D_NCCL", None).define("SEGSLURM_CUDA", None);
        for include in nvidia_includes(&libtorch) {
            build
                .flag("-isystem")
                .flag(include.to_str().expect("the path of CUDA's headers is not UTF-8"));
        }
    }
    for source in SOURCES {
        build.file(source);
    }
    build.compile("segslurm_shim");

    println!("cargo:rustc-link-search=native={}", libtorch.libraries.display());
    for library in ["torch_cpu", "torch", "c10"] {
        println!("cargo:rustc-link-lib={library}");
    }
    if cuda {
        for library in ["torch_cuda", "c10_cuda"] {
            println!("cargo:rustc-link-lib={library}");
        }
        // libtorch_cuda finds NVIDIA's libraries by its own rpath, which the linker does not
        // follow.
        println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
    }
    println!("cargo:LIBDIR={}", libtorch.libraries.display());
    println!("cargo:CUDA={}", u8::from(cuda));
    // For this package's own tests; the program gets its rpath from the root's build script.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.libraries.display());
}

fn find() -> Libtorch {
    if std::env::var("LIBTORCH_USE_PYTORCH").is_ok() {
        let script = "import torch, os; print(os.path.dirname(torch.__file__))";
        let output = Command::new("python3").args(["-c", script]).output();
        let folder = output
            .ok()
            .filter(|it| it.status.success())
            .map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
        let Some(folder) = folder else {
            stop(
                "LIBTORCH_USE_PYTORCH is set, but python3 cannot import torch; pip install \
                 torch==2.11.0, or unset it",
            );
        };
        return at(Path::new(&folder));
    }
    let Some(folder) = std::env::var_os("LIBTORCH") else {
        stop(
            "LIBTORCH is not set and .cargo/config.toml was not read; build from the project's \
             root, or set LIBTORCH",
        );
    };
    at(Path::new(&folder))
}

fn at(folder: &Path) -> Libtorch {
    let root = |name| std::env::var_os(name).map_or_else(|| folder.to_owned(), PathBuf::from);
    let include = root("LIBTORCH_INCLUDE").join("include");
    let libraries = root("LIBTORCH_LIB").join("lib");
    if !libraries.join("libtorch_cpu.so").exists() {
        stop(&format!(
            "no libtorch in {}: run `make libtorch`, or set LIBTORCH to a folder with include/ and \
             lib/",
            folder.display()
        ));
    }
    Libtorch {
        includes: vec![include.join("torch/csrc/api/include"), include],
        libraries: libraries.canonicalize().unwrap_or(libraries),
    }
}

/// Where the headers of CUDA and NCCL are: in NVIDIA's wheels beside PyTorch's, each with its own
/// `include/`, else in a toolkit.
fn nvidia_includes(libtorch: &Libtorch) -> Vec<PathBuf> {
    let above = libtorch.includes[1].ancestors().skip(1).take(3);
    let roots =
        above.chain(libtorch.libraries.ancestors().skip(1).take(3)).map(|it| it.join("nvidia"));
    let wheels = roots.into_iter().find(|it| it.is_dir());
    // Two of NVIDIA's packages are headers alone, which PyTorch does not bring: scripts/libtorch.sh
    // fetches them here.
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.libtorch-cuda-headers/nvidia");
    let in_wheels = wheels
        .iter()
        .chain([&fetched])
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
        .map(|it| it.path());
    let named = CUDA_ROOTS.iter().filter_map(std::env::var_os).map(PathBuf::from);
    let roots =
        in_wheels.chain(named).chain([PathBuf::from("/usr/local/cuda"), PathBuf::from("/usr")]);
    let folders: Vec<PathBuf> =
        roots.map(|it| it.join("include")).flat_map(|it| [it.join("cccl"), it]).collect();
    // The compiler looks into /usr/include and CPATH by itself, and /usr/include must not come
    // before its own folders.
    let known = std::env::var_os("CPATH")
        .map(|it| std::env::split_paths(&it).collect::<Vec<_>>())
        .unwrap_or_default();
    let mut includes: Vec<PathBuf> = Vec::new();
    let mut missing = Vec::new();
    for header in CUDA_HEADERS {
        match folders.iter().chain(&known).find(|it| it.join(header).exists()) {
            Some(folder)
                if folder == Path::new("/usr/include")
                    || known.contains(folder)
                    || includes.contains(folder) => {}
            Some(folder) => includes.push(folder.clone()),
            None => missing.push(header),
        }
    }
    if !missing.is_empty() {
        stop(&format!(
            "{} has CUDA, but these headers to compile against it were not found: {}; looked into \
             NVIDIA's wheels beside it, {}, /usr/local/cuda and CPATH. `make build CUDA=1` fetches \
             them for CUDA 13.0; else load the cluster's CUDA and NCCL modules",
            libtorch.libraries.display(),
            missing.join(", "),
            CUDA_ROOTS.join(", ")
        ));
    }
    includes
}

fn check_version(libtorch: &Libtorch) {
    let header = libtorch.includes[1].join("torch/headeronly/version.h");
    let old_header = libtorch.includes[0].join("torch/version.h");
    let text = std::fs::read_to_string(&header)
        .or_else(|_| std::fs::read_to_string(&old_header))
        .unwrap_or_default();
    let number = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(&format!("#define {name} "))?.trim().parse::<u32>().ok()
        })
    };
    match (number("TORCH_VERSION_MAJOR"), number("TORCH_VERSION_MINOR")) {
        (Some(major), Some(minor)) if (OLDEST..=NEWEST).contains(&(major, minor)) => {}
        (Some(major), Some(minor)) => stop(&format!(
            "libtorch {major}.{minor} is outside the tested range {}.{} to {}.{}: run `make \
             libtorch`, or point LIBTORCH at one inside it",
            OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1
        )),
        _ => stop(&format!("cannot read libtorch's version from {}", header.display())),
    }
}

fn stop(message: &str) -> ! {
    println!("cargo:warning={message}");
    eprintln!("{message}");
    exit(1);
}
