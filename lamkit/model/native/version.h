// One library for each version and precision: what is not used is not compiled.
#pragma once
#include "layers.h"

namespace {
using T = LAMKIT_REAL;
#if LAMKIT_VERSION == 2
using Act = lamkit::ShiftedSoftplus;
constexpr bool kCentred = true;
#else
using Act = lamkit::Silu;
constexpr bool kCentred = false;
#endif
}  // namespace
