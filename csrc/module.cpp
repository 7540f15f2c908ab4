// genkern._engine: facts about the build. The ops are in libraries of their own, without Python.
#include <pybind11/pybind11.h>

#include <string>

#include "core/bf16_pairs.h"

PYBIND11_MODULE(_engine, m) {
  m.attr("compiler") = __VERSION__;
  m.def("bf16_pairs", [](const std::string& level) {
    return genkern::core::multiplies_pairs(level == "avx512");
  });
}
