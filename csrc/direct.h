// Calls of the ops from Python past torch's dispatcher, whose schema, boxes and keys take 3 of the
// 5 us of a call on a few elements. Tensors come and go through the C table of DLPack that torch
// offers; whatever is not a plain call on CPU tensors is left to the dispatcher.
#pragma once
#include <Python.h>

// torch hides its copy of the DLPack standard, a C header, from builds for the stable ABI.
#pragma push_macro("TORCH_TARGET_VERSION")
#undef TORCH_TARGET_VERSION
#include <ATen/dlpack.h>
#pragma pop_macro("TORCH_TARGET_VERSION")

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace genkern::direct {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// What module.cpp learns from Python when it is imported; without a table no call is plain.
struct Torch {
  const DLPackExchangeAPI* table = nullptr;
  PyTypeObject *tensor = nullptr, *parameter = nullptr;
  PyObject* hooks = nullptr;  // tuple of functions; one that returns true wants to see the call
};
inline Torch torch_state;
inline thread_local bool calling = false;  // results that nobody asked for may be undefined: None

inline std::vector<PyMethodDef>& methods() {
  static std::vector<PyMethodDef> list;
  return list;
}

// ---- from Python; false where the argument is not a plain one ------------------------------

inline std::optional<ScalarType> scalar_type(DLDataType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == kDLFloat && type.bits == 32) return ScalarType::Float;
  if (type.code == kDLFloat && type.bits == 64) return ScalarType::Double;
  if (type.code == kDLFloat && type.bits == 16) return ScalarType::Half;
  if (type.code == kDLBfloat && type.bits == 16) return ScalarType::BFloat16;
  if (type.code == kDLInt && type.bits == 64) return ScalarType::Long;
  return std::nullopt;
}

inline bool read(PyObject* object, std::optional<Tensor>& value) {
  if (Py_TYPE(object) != torch_state.tensor && Py_TYPE(object) != torch_state.parameter)
    return false;
  DLTensor view;
  if (torch_state.table->dltensor_from_py_object_no_sync(object, &view)) {
    PyErr_Clear();
    return false;
  }
  const auto type = scalar_type(view.dtype);
  if (view.device.device_type != kDLCPU || !type) return false;
  AtenTensorHandle handle;
  if (aoti_torch_create_tensor_from_blob(static_cast<char*>(view.data) + view.byte_offset,
                                         view.ndim, view.shape, view.strides, 0, int32_t(*type),
                                         aoti_torch_device_type_cpu(), 0, &handle))
    return false;
  value.emplace(handle);
  return value->numel() > 0;
}

inline bool read(PyObject* object, std::optional<int64_t>& value) {
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0;
}
inline bool read(PyObject* object, std::optional<bool>& value) {
  value = object == Py_True;
  return PyBool_Check(object);
}
inline bool read(PyObject* object, std::optional<double>& value) {
  if (!PyFloat_CheckExact(object)) return false;
  value = PyFloat_AS_DOUBLE(object);
  return true;
}

// One parameter of an op, of type T or std::optional<T>.
template <typename T>
struct Argument {
  std::optional<T> value;
  bool set(PyObject* object) { return read(object, value); }
  const T& get() const { return *value; }
};
template <typename T>
struct Argument<std::optional<T>> {
  std::optional<T> value;
  bool set(PyObject* object) { return object == Py_None || read(object, value); }
  const std::optional<T>& get() const { return value; }
};

// ---- to Python -----------------------------------------------------------------------------

inline DLDataType data_type(ScalarType type) {
  switch (type) {
    case ScalarType::Double:
      return {kDLFloat, 64, 1};
    case ScalarType::BFloat16:
      return {kDLBfloat, 16, 1};
    case ScalarType::Half:
      return {kDLFloat, 16, 1};
    default:
      return {kDLFloat, 32, 1};
  }
}

struct Result {
  DLManagedTensorVersioned managed;
  Tensor tensor;
};

inline PyObject* wrap(Tensor tensor) {
  if (!tensor.defined()) Py_RETURN_NONE;
  auto result = std::make_unique<Result>(Result{{}, std::move(tensor)});
  const Tensor& t = result->tensor;
  DLManagedTensorVersioned& managed = result->managed;
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.manager_ctx = result.get();
  managed.deleter = [](DLManagedTensorVersioned* self) {
    delete static_cast<Result*>(self->manager_ctx);
  };
  managed.dl_tensor = {t.data_ptr(),
                       {kDLCPU, 0},
                       int32_t(t.dim()),
                       data_type(t.scalar_type()),
                       const_cast<int64_t*>(t.sizes().data()),
                       const_cast<int64_t*>(t.strides().data()),
                       0};
  void* object = nullptr;
  if (torch_state.table->managed_tensor_to_py_object_no_sync(&managed, &object)) return nullptr;
  result.release();
  return static_cast<PyObject*>(object);
}

template <typename... Ts>
PyObject* wrap(std::tuple<Ts...> tensors) {
  PyObject* tuple = PyTuple_New(sizeof...(Ts));
  if (!tuple) return nullptr;
  Py_ssize_t i = 0;
  bool done = true;
  std::apply(
      [&](auto&... tensor) {
        const auto add = [&](Tensor& t) {
          PyObject* item = done ? wrap(std::move(t)) : nullptr;
          done = item != nullptr;
          if (item) PyTuple_SET_ITEM(tuple, i++, item);
        };
        (add(tensor), ...);
      },
      tensors);
  if (done) return tuple;
  Py_DECREF(tuple);
  return nullptr;
}

// ---- the call ------------------------------------------------------------------------------

// Whether a mode, a transform, a tracer or a profiler wants to see every op; -1: an error.
inline int is_watched() {
  const Py_ssize_t count = PyTuple_GET_SIZE(torch_state.hooks);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* answer = PyObject_CallNoArgs(PyTuple_GET_ITEM(torch_state.hooks, i));
    if (!answer) return -1;
    const int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (truth) return truth;
  }
  return 0;
}

template <typename R, typename... Args, size_t... i>
PyObject* call(R (*function)(Args...), PyObject* const* objects, std::index_sequence<i...>) {
  std::tuple<Argument<std::remove_cvref_t<Args>>...> arguments;
  if (!(std::get<i>(arguments).set(objects[i]) && ...)) Py_RETURN_NOTIMPLEMENTED;
  std::optional<R> result;
  std::string error;
  PyThreadState* state = PyEval_SaveThread();
  calling = true;
  try {
    result = function(std::get<i>(arguments).get()...);
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  calling = false;
  PyEval_RestoreThread(state);
  if (result) return wrap(std::move(*result));
  PyErr_SetString(PyExc_RuntimeError, error.c_str());
  return nullptr;
}

template <typename R, typename... Args>
constexpr size_t count_parameters(R (*)(Args...)) {
  return sizeof...(Args);
}

// NotImplemented where the dispatcher has to take the call.
template <auto function>
PyObject* entry(PyObject*, PyObject* const* objects, Py_ssize_t count) {
  constexpr size_t kCount = count_parameters(function);
  if (!torch_state.table || count != Py_ssize_t(kCount)) Py_RETURN_NOTIMPLEMENTED;
  const int watched = is_watched();
  if (watched < 0) return nullptr;
  if (watched) Py_RETURN_NOTIMPLEMENTED;
  return call(function, objects, std::make_index_sequence<kCount>{});
}

template <auto function>
void add(const char* name) {
  const auto pointer = reinterpret_cast<void (*)()>(&entry<function>);
  methods().push_back({name, reinterpret_cast<PyCFunction>(pointer), METH_FASTCALL, nullptr});
}

}  // namespace genkern::direct
