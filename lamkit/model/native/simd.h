// Vectors as wide as the machine's registers, and the elementary functions on them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace lamkit {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 14;  // 28 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 6;  // 12 of 16
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRows = 12;  // 24 of 32
#else
constexpr int kBytes = 16, kRows = 6;
#endif

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef float U __attribute__((vector_size(kBytes), aligned(4)));
  typedef int32_t I __attribute__((vector_size(kBytes)));
};
template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef double U __attribute__((vector_size(kBytes), aligned(8)));
  typedef int64_t I __attribute__((vector_size(kBytes)));
};

template <typename T>
using Vec = typename Simd<T>::V;
template <typename T>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
// Columns of one tile of a matrix product.
template <typename T>
constexpr int kCols = 2 * kLanes<T>;

#define LAMKIT_INLINE inline __attribute__((always_inline))

template <typename T>
LAMKIT_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::U*>(p);
}
template <typename T>
LAMKIT_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::U*>(p) = v;
}
template <typename T>
LAMKIT_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};
}
template <typename T>
LAMKIT_INLINE T total(Vec<T> v) {
  T sum = 0;
  for (int i = 0; i < kLanes<T>; i++) sum += v[i];
  return sum;
}

// Sum of f(0) ... f(n-1), in a fixed number of interleaved parts: fast, and rounds less than one running sum.
template <typename T, typename F>
LAMKIT_INLINE T reduce(long n, F f) {
  constexpr int parts = 32;
  T part[parts] = {};
  long j = 0;
  for (; j + parts <= n; j += parts)
    for (int l = 0; l < parts; l++) part[l] += f(j + l);
  for (int l = 0; j < n; j++, l++) part[l] += f(j);
  for (int width = parts / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) part[l] += part[l + width];
  return part[0];
}

// e^x for x <= 0: 2^n times a polynomial on |r| <= ln2/2; 0 where the result would be denormal.
LAMKIT_INLINE Vec<float> exp_negative(Vec<float> x) {
  typedef Simd<float>::I I;
  const Vec<float> low = splat(-87.0f);
  x = x < low ? low : x;
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  const Vec<float> shifted = x * 1.44269504f + 12582912.0f;
  const Vec<float> n = shifted - 12582912.0f;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);  // minimax on |r| <= ln2/2 (Cephes, expf)
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  I bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  I scale = (bits + 127) << 23;  // the sign and high bits of the shift fall off the top
  Vec<float> power;
  std::memcpy(&power, &scale, sizeof power);
  return p * power;
}
LAMKIT_INLINE Vec<double> exp_negative(Vec<double> x) {
  typedef Simd<double>::I I;
  const Vec<double> low = splat(-708.0);
  x = x < low ? low : x;
  const Vec<double> shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const Vec<double> n = shifted - 6755399441055744.0;
  const Vec<double> r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  Vec<double> p = splat(1.0 / 6227020800.0);
  double factorial = 479001600.0;
  for (int k = 12; k > 0; k--) {
    p = p * r + 1.0 / factorial;
    factorial /= k;
  }
  p = p * r + 1.0;
  I bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  I scale = (bits + 1023) << 52;
  Vec<double> power;
  std::memcpy(&power, &scale, sizeof power);
  return p * power;
}

template <typename T>
LAMKIT_INLINE Vec<T> magnitude(Vec<T> x) {
  return x < 0 ? -x : x;
}

// 1 / (1 + e^-x)
template <typename T>
LAMKIT_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exp_negative(-magnitude<T>(x));
  const Vec<T> tail = T(1) / (T(1) + e);
  return x < 0 ? e * tail : tail;
}

// ln(1 + t) for 0 <= t <= 1, by 2 artanh(t / (2 + t)).
template <typename T>
LAMKIT_INLINE Vec<T> log1p_unit(Vec<T> t) {
  const Vec<T> s = t / (T(2) + t);
  const Vec<T> q = s * s;
  constexpr int terms = sizeof(T) == 4 ? 7 : 17;
  Vec<T> p = splat<T>(T(1) / (2 * terms + 1));
  for (int k = terms - 1; k >= 0; k--) p = p * q + T(1) / (2 * k + 1);
  return T(2) * s * p;
}

// Activations: value, first and second derivative.
struct Silu {
  template <typename T>
  LAMKIT_INLINE static Vec<T> value(Vec<T> x) {
    return x * sigmoid<T>(x);
  }
  template <typename T>
  LAMKIT_INLINE static Vec<T> slope(Vec<T> x) {
    const Vec<T> s = sigmoid<T>(x);
    return s + x * s * (T(1) - s);
  }
  template <typename T>
  LAMKIT_INLINE static void all(Vec<T> x, Vec<T>& value, Vec<T>& slope, Vec<T>& curvature) {
    const Vec<T> s = sigmoid<T>(x);
    const Vec<T> ds = s * (T(1) - s);
    value = x * s;
    slope = s + x * ds;
    curvature = ds * (T(2) + x * (T(1) - T(2) * s));
  }
};

// ln(1 + e^x) - ln 2, linear above 20 as in PyTorch.
struct ShiftedSoftplus {
  template <typename T>
  LAMKIT_INLINE static Vec<T> value(Vec<T> x) {
    const T log2 = T(0.69314718055994530942);
    const Vec<T> tail = log1p_unit<T>(exp_negative(-magnitude<T>(x)));
    const Vec<T> zero = {};
    return x > T(20) ? x - log2 : (x > 0 ? x : zero) + tail - log2;
  }
  template <typename T>
  LAMKIT_INLINE static Vec<T> slope(Vec<T> x) {
    return x > T(20) ? splat<T>(1) : sigmoid<T>(x);
  }
  template <typename T>
  LAMKIT_INLINE static void all(Vec<T> x, Vec<T>& value, Vec<T>& slope, Vec<T>& curvature) {
    value = ShiftedSoftplus::value<T>(x);
    const Vec<T> s = sigmoid<T>(x);
    const Vec<T> zero = {};
    slope = x > T(20) ? splat<T>(1) : s;
    curvature = x > T(20) ? zero : s * (T(1) - s);
  }
};

}  // namespace lamkit
