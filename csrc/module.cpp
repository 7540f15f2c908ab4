// genkern._C_<isa>: importing it registers the compiled ops with torch.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(GENKERN_MODULE, m) {
  m.attr("isa") = GENKERN_ISA;
  m.attr("compiler") = __VERSION__;
}
