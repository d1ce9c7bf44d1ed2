// Any ATen operation by the name of its schema, through libtorch's dispatcher: what an operation
// needs is Rust alone.
#include "shim.h"

#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <unordered_map>
#include <vector>

using at::Tensor;
using c10::IValue;
using segslurm::guarded;
using segslurm::own;

namespace {

// Looked up once a thread and name: `aten::add.Tensor`.
const c10::OperatorHandle& find(const char* name) {
  static thread_local std::unordered_map<std::string, c10::OperatorHandle> known;
  const std::string key(name);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  const auto dot = key.find('.');
  const std::string base = key.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : key.substr(dot + 1);
  return known
      .emplace(key, c10::Dispatcher::singleton().findSchemaOrThrow(base.c_str(), overload.c_str()))
      .first->second;
}

IValue value_of(const SegslurmArgument& argument) {
  switch (argument.kind) {
    case SEGSLURM_NONE:
      return IValue();
    case SEGSLURM_TENSOR:
      return IValue(*static_cast<const Tensor*>(argument.data));
    case SEGSLURM_TENSORS: {
      const auto* tensors = static_cast<const Tensor* const*>(argument.data);
      c10::List<Tensor> list;
      list.reserve(argument.length);
      for (size_t i = 0; i < argument.length; ++i) list.push_back(*tensors[i]);
      return IValue(std::move(list));
    }
    case SEGSLURM_INT:
      return IValue(argument.integer);
    case SEGSLURM_INTS: {
      const auto* values = static_cast<const int64_t*>(argument.data);
      return IValue(c10::List<int64_t>(c10::ArrayRef<int64_t>(values, argument.length)));
    }
    case SEGSLURM_FLOAT:
      return IValue(argument.number);
    case SEGSLURM_BOOL:
      return IValue(argument.integer != 0);
    case SEGSLURM_BOOLS: {
      const auto* values = static_cast<const uint8_t*>(argument.data);
      c10::List<bool> list;
      list.reserve(argument.length);
      for (size_t i = 0; i < argument.length; ++i) list.push_back(values[i] != 0);
      return IValue(std::move(list));
    }
    case SEGSLURM_TEXT:
      return IValue(std::string(static_cast<const char*>(argument.data), argument.length));
    default:
      TORCH_CHECK(false, "an argument of kind ", argument.kind);
  }
}

void add(std::vector<SegslurmResult>& results, const IValue& value) {
  SegslurmResult result{SEGSLURM_NONE, 0, 0.0, nullptr};
  if (value.isTensor()) {
    result.kind = SEGSLURM_TENSOR;
    result.tensor = own(value.toTensor());
  } else if (value.isInt()) {
    result.kind = SEGSLURM_INT;
    result.integer = value.toInt();
  } else if (value.isDouble()) {
    result.kind = SEGSLURM_FLOAT;
    result.number = value.toDouble();
  } else if (value.isBool()) {
    result.kind = SEGSLURM_BOOL;
    result.integer = value.toBool() ? 1 : 0;
  } else if (value.isTensorList()) {
    for (const Tensor& tensor : value.toTensorVector()) add(results, IValue(tensor));
    return;
  }
  results.push_back(result);
}

}  // namespace

extern "C" {

// Calls `name` with `count` arguments, the schema's defaults after them. The results are this
// thread's, until its next call; the tensors among them are the caller's.
int segslurm_call(const char* name, const SegslurmArgument* arguments, size_t count,
                  const SegslurmResult** results, size_t* result_count) {
  return guarded([&] {
    static thread_local std::vector<SegslurmResult> returned;
    returned.clear();
    const c10::OperatorHandle& operation = find(name);
    const auto& expected = operation.schema().arguments();
    TORCH_CHECK(count <= expected.size(), name, " takes ", expected.size(), " arguments, not ",
                count);
    torch::jit::Stack stack;
    stack.reserve(expected.size());
    for (size_t i = 0; i < count; ++i) stack.push_back(value_of(arguments[i]));
    for (size_t i = count; i < expected.size(); ++i) {
      TORCH_CHECK(expected[i].default_value().has_value(), name, " needs an argument ",
                  expected[i].name());
      stack.push_back(*expected[i].default_value());
    }
    const at::NoGradGuard no_grad;
    operation.callBoxed(stack);
    for (const IValue& value : stack) add(returned, value);
    *results = returned.data();
    *result_count = returned.size();
  });
}

}  // extern "C"
