// CUDA kernels of our own: compiled by libtorch's own NVRTC for the card at hand when they are
// first used, so that building segslurm needs no CUDA compiler and every card gets its own code.
#pragma once
#ifdef SEGSLURM_CUDA
#include <c10/cuda/CUDAStream.h>

#include <dlfcn.h>

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/cuda/CUDAContextLight.h>

namespace segslurm {

// The few functions of NVRTC and of the driver that this takes, from the libraries that libtorch
// loads for the same purpose.
class Compiler {
 public:
  static const Compiler& get() {
    static const Compiler compiler;
    return compiler;
  }

  // The machine code of `source` for a card of that compute capability.
  std::string compile(const char* source, const char* name, int major, int minor) const {
    void* program = nullptr;
    TORCH_CHECK(create_(&program, source, name, 0, nullptr, nullptr) == 0, name,
                ": NVRTC takes no program");
    const std::string architecture =
        "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor);
    const std::array<const char*, 2> options{architecture.c_str(), "--std=c++17"};
    const int result = compile_(program, static_cast<int>(options.size()), options.data());
    size_t size = 0;
    if (result != 0) {
      std::string log;
      if (log_size_(program, &size) == 0) {
        log.resize(size);
        log_(program, log.data());
      }
      destroy_(&program);
      TORCH_CHECK(false, name, ": NVRTC refuses it for ", architecture, ": ", log);
    }
    std::string code;
    TORCH_CHECK(code_size_(program, &size) == 0, name, ": NVRTC made no code");
    code.resize(size);
    code_(program, code.data());
    destroy_(&program);
    return code;
  }

  // Loads code into the current context.
  void* load(const std::string& code) const {
    void* module = nullptr;
    const int result = load_(&module, code.data());
    TORCH_CHECK(result == 0, "the driver does not load a kernel (CUresult ", result, ")");
    return module;
  }

  void* function(void* module, const char* name) const {
    void* function = nullptr;
    const int result = function_(&function, module, name);
    TORCH_CHECK(result == 0, "the driver does not find the kernel ", name, " (CUresult ", result,
                ")");
    return function;
  }

  void launch(void* function, std::array<unsigned, 3> grid, std::array<unsigned, 3> block,
              void** arguments) const {
    const int result = launch_(function, grid[0], grid[1], grid[2], block[0], block[1], block[2], 0,
                               c10::cuda::getCurrentCUDAStream().stream(), arguments, nullptr);
    TORCH_CHECK(result == 0, "the driver does not start a kernel (CUresult ", result, ")");
  }

 private:
  Compiler() {
    void* library = dlopen("libcaffe2_nvrtc.so", RTLD_NOW | RTLD_LOCAL);
    Dl_info here;
    if (library == nullptr &&
        dladdr(reinterpret_cast<void*>(&at::cuda::getDeviceProperties), &here) != 0) {
      std::string path(here.dli_fname);
      path = path.substr(0, path.rfind('/') + 1) + "libcaffe2_nvrtc.so";
      library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    TORCH_CHECK(library != nullptr, "libtorch's libcaffe2_nvrtc.so cannot be loaded: ", dlerror());
    const auto find = [&](auto& place, const char* name) {
      place = reinterpret_cast<std::remove_reference_t<decltype(place)>>(dlsym(library, name));
      TORCH_CHECK(place != nullptr, name, " is not in CUDA's libraries");
    };
    find(create_, "nvrtcCreateProgram");
    find(compile_, "nvrtcCompileProgram");
    find(log_size_, "nvrtcGetProgramLogSize");
    find(log_, "nvrtcGetProgramLog");
    find(code_size_, "nvrtcGetCUBINSize");
    find(code_, "nvrtcGetCUBIN");
    find(destroy_, "nvrtcDestroyProgram");
    find(load_, "cuModuleLoadData");
    find(function_, "cuModuleGetFunction");
    find(launch_, "cuLaunchKernel");
  }

  int (*create_)(void**, const char*, const char*, int, const char* const*, const char* const*);
  int (*compile_)(void*, int, const char* const*);
  int (*log_size_)(void*, size_t*);
  int (*log_)(void*, char*);
  int (*code_size_)(void*, size_t*);
  int (*code_)(void*, char*);
  int (*destroy_)(void**);
  int (*load_)(void**, const void*);
  int (*function_)(void**, void*, const char*);
  int (*launch_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                 void**, void**);
};

// A source and its kernels on the cards of this process, compiled once for each.
template <size_t N>
class Kernels {
 public:
  Kernels(const char* source, const char* name, std::array<const char*, N> names)
      : source_(source), name_(name), names_(names) {}

  // Starts kernel `which` on the current stream of the current card; the arguments are passed as
  // they are.
  template <typename... Arguments>
  void launch(size_t which, std::array<unsigned, 3> grid, std::array<unsigned, 3> block,
              Arguments... arguments) {
    std::array<void*, sizeof...(Arguments)> places{&arguments...};
    Compiler::get().launch(functions()[which], grid, block, places.data());
  }

 private:
  const std::array<void*, N>& functions() {
    const std::lock_guard<std::mutex> guard(mutex_);
    const auto card = static_cast<size_t>(c10::cuda::current_device());
    if (card >= loaded_.size()) loaded_.resize(card + 1);
    if (loaded_[card][0] == nullptr) {
      const auto* properties = at::cuda::getCurrentDeviceProperties();
      const Compiler& compiler = Compiler::get();
      void* module =
          compiler.load(compiler.compile(source_, name_, properties->major, properties->minor));
      for (size_t it = N; it-- > 0;) loaded_[card][it] = compiler.function(module, names_[it]);
    }
    return loaded_[card];
  }

  const char* source_;
  const char* name_;
  std::array<const char*, N> names_;
  std::mutex mutex_;
  std::vector<std::array<void*, N>> loaded_;
};

}  // namespace segslurm
#endif
