// genkern._C_<isa>: importing it registers the compiled ops with torch.
#include <pybind11/pybind11.h>

#include "bind.h"
#include "core/bf16_pairs.h"

namespace {

namespace py = pybind11;
using namespace genkern;

// False where the table of this torch is of another kind. Until this is called, the functions of
// the module leave every call to the dispatcher.
bool enable_direct_calls(py::capsule table, py::type tensor, py::type parameter, py::tuple hooks) {
  const auto* api = static_cast<const DLPackExchangeAPI*>(table.get_pointer());
  if (api->header.version.major != DLPACK_MAJOR_VERSION || !api->dltensor_from_py_object_no_sync)
    return false;
  direct::torch_state = {api, reinterpret_cast<PyTypeObject*>(tensor.release().ptr()),
                         reinterpret_cast<PyTypeObject*>(parameter.release().ptr()),
                         hooks.release().ptr()};
  return true;
}

}  // namespace

PYBIND11_MODULE(GENKERN_MODULE, m) {
  m.attr("isa") = GENKERN_ISA;
  m.attr("compiler") = __VERSION__;
  m.attr("bf16_pairs") = core::bf16_pairs();
  m.def("enable_direct_calls", &enable_direct_calls);
  direct::methods().push_back({});  // ends the list
  if (PyModule_AddFunctions(m.ptr(), direct::methods().data())) throw py::error_already_set();
}
