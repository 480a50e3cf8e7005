// The norm that ends a network: RMS norm (v3), or layer norm (v2, kCentred), on one row of length O.
#pragma once
#include "simd.h"

namespace lamkit {

template <bool kCentred, typename T>
struct Norm {
  static constexpr T eps() { return kCentred ? T(1e-5) : std::numeric_limits<T>::epsilon(); }

  // c = y (minus its mean), 1 / sqrt(mean c^2 + eps)
  static T centre(const T* y, T* c, long O) {
    const T mean = kCentred ? reduce<T>(O, [&](long i) { return y[i]; }) / O : T(0);
    for (long i = 0; i < O; i++) c[i] = y[i] - mean;
    return T(1) / std::sqrt(reduce<T>(O, [&](long i) { return c[i] * c[i]; }) / O + eps());
  }

  static void value(const T* y, const T* gain, const T* shift, T* u, T* c, long O) {
    const T s = centre(y, c, O);
    for (long i = 0; i < O; i++) u[i] = c[i] * s * gain[i] + (kCentred ? shift[i] : T(0));
  }

  static void project(T* v, long O) {
    if (!kCentred) return;
    const T mean = reduce<T>(O, [&](long i) { return v[i]; }) / O;
    for (long i = 0; i < O; i++) v[i] -= mean;
  }

  // dy = J^T du;  unit = c s, what the gain multiplies
  static void reverse(const T* y, const T* gain, const T* du, T* dy, T* unit, long O) {
    const T s = centre(y, unit, O);
    for (long i = 0; i < O; i++) unit[i] *= s;
    const T dot = reduce<T>(O, [&](long i) { return du[i] * gain[i] * unit[i]; }) / O;
    for (long i = 0; i < O; i++) dy[i] = s * (du[i] * gain[i] - unit[i] * dot);
    project(dy, O);
  }

  // Gradient of t . reverse(y, du): with respect to du (out_u), y (out_y) and gain (out_g).
  static void twice(const T* y, const T* gain, const T* du, T* t, T* out_u, T* out_y, T* out_g, T* unit, long O) {
    const T s = centre(y, unit, O);
    project(t, O);
    for (long i = 0; i < O; i++) unit[i] *= s;
    const T tz = reduce<T>(O, [&](long i) { return t[i] * du[i] * gain[i]; });
    const T tc = reduce<T>(O, [&](long i) { return t[i] * unit[i]; });
    const T zc = reduce<T>(O, [&](long i) { return du[i] * gain[i] * unit[i]; });
    const T n = T(1) / O;
    for (long i = 0; i < O; i++) {
      const T z = du[i] * gain[i];
      const T lift = s * (t[i] - tc * n * unit[i]);
      out_u[i] = gain[i] * lift;
      out_g[i] = du[i] * lift;
      out_y[i] = s * s * n * (unit[i] * (3 * tc * zc * n - tz) - zc * t[i] - tc * z);
    }
    project(out_y, O);
  }
};

}  // namespace lamkit
