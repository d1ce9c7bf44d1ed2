//! What libtorch says when something fails, made fit for a person: without its C++ trace, on one
//! line, and whether it was memory that lacked.

/// What may follow libtorch's own sentence: where in its source the error was raised, the C++
/// stack, and advice for those who build it.
const TAILS: [&str; 8] = [
    "Exception raised from",
    "C++ CapturedTraceback",
    "frame #0",
    "CUDA kernel errors might be asynchronously",
    "Compile with `TORCH_USE_CUDA_DSA`",
    "For debugging consider passing",
    "Of the allocated memory",
    "Search for `cudaError",
];

/// The beginnings of sentences about a lack of memory, of the host's or a GPU's, by libtorch,
/// CUDA's libraries, the C++ and the operating system, in lower case.
const LACKS: [&str; 11] = [
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "insufficient memory",
    "std::bad_alloc",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_alloc_failed",
    "cufft_alloc_failed",
];

/// cuDNN says of a convolution for which no algorithm's workspace fits that it is not supported.
const PERHAPS_MEMORY: [&str; 2] =
    ["cudnn_status_not_supported", "unable to find an engine to execute"];

/// libtorch's message without what is for its developers, on one line.
#[must_use]
pub fn sentence(message: &str) -> String {
    let end = TAILS.iter().filter_map(|tail| message.find(tail)).min().unwrap_or(message.len());
    let text = message[..end].split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("Internal torch error: ").unwrap_or(&text);
    // `[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: …`
    let text = match text.strip_prefix("[enforce fail at ").and_then(|it| it.split_once("] ")) {
        Some((_, rest)) => rest.split_once(". ").map_or(rest, |(_, said)| said),
        None => text,
    };
    text.trim_end_matches(['.', ' ', '(']).to_owned()
}

/// Whether a message is about a lack of memory.
#[must_use]
pub fn lacks_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    LACKS.iter().chain(&PERHAPS_MEMORY).any(|it| message.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_and_the_place_in_libtorchs_source_are_cut() {
        let message = "Internal torch error: Given groups=1, weight of size [4, 3, 3, 3], expected \
                       input[1, 2, 8, 8] to have 3 channels, but got 2 channels instead\nException \
                       raised from check_shape_forward at \
                       /pytorch/aten/src/ATen/native/Convolution.cpp:717 (most recent call \
                       first):\nframe #0: c10::Error::Error";
        assert_eq!(
            sentence(message),
            "Given groups=1, weight of size [4, 3, 3, 3], expected input[1, 2, 8, 8] to have 3 \
             channels, but got 2 channels instead"
        );
        assert!(!lacks_memory(message));
    }

    #[test]
    fn a_lack_of_memory_is_known_by_what_its_reporters_say() {
        let host = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't \
                    allocate memory: you tried to allocate 4000000000000 bytes. Error code 12 \
                    (Cannot allocate memory)\nException raised from alloc_cpu";
        assert_eq!(
            sentence(host),
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 \
             bytes. Error code 12 (Cannot allocate memory)"
        );
        let gpu = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of \
                   79.10 GiB of which 1.00 GiB is free. Of the allocated memory 70.00 GiB is \
                   allocated by PyTorch";
        assert_eq!(
            sentence(gpu),
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 \
             GiB of which 1.00 GiB is free"
        );
        let library = "cuDNN error: CUDNN_STATUS_ALLOC_FAILED";
        assert!(
            [
                host,
                gpu,
                library,
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ]
            .into_iter()
            .all(lacks_memory)
        );
        assert!(!lacks_memory("CUDA error: device-side assert triggered"));
    }
}
