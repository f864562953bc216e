// How a whole is cut.
#pragma once
#include <cstdint>

namespace {

inline int64_t pieces(int64_t whole, int64_t size) { return (whole + size - 1) / size; }
inline int64_t up_to(int64_t whole, int64_t size) { return pieces(whole, size) * size; }  // the next multiple

}  // namespace
