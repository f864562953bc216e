// How a whole is cut, and dealt out.
#pragma once
#include <atomic>
#include <cstdint>

namespace {

inline int64_t pieces(int64_t whole, int64_t size) { return (whole + size - 1) / size; }
inline int64_t up_to(int64_t whole, int64_t size) { return pieces(whole, size) * size; }  // the next multiple

// The next job: whichever thread is free takes it. Were all given as many, each would wait for the core that has others to
// serve, too.
typedef std::atomic<int64_t> Next;

}  // namespace
