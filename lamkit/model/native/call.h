// How MindSpore calls an operator: pointers to inputs, then outputs, and their shapes.
#pragma once
#include <cstdint>
#include <cstdio>

#include "pool.h"

#define LAMKIT_ARGS int, void **params, int *, int64_t **shapes, const char **, void *, void *

namespace lamkit {

// Reads the arguments of one call in order.
struct Call {
  void** params;
  int64_t** shapes;
  int at = 0;
  template <typename T>
  T* next() {
    return static_cast<T*>(params[at++]);
  }
  long dim(int axis) const { return shapes[at][axis]; }
};

template <typename F>
int guarded(F f) {
  std::lock_guard<std::mutex> turn(Pool::instance().turn());
  try {
    f();
    return 0;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "lamkit: out of memory in a network operator; use smaller batches\n");
    return 1;
  }
}

}  // namespace lamkit
