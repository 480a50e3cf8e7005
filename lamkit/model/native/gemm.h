// Matrix products in tiles of kRows x kCols that stay in registers (the scheme of Goto and van de Geijn, ACM
// TOMS 34, 12, 2008). The right factor is packed into panels of kCols columns; the left factor is read as it is.
#pragma once
#include "pool.h"
#include "simd.h"

namespace lamkit {

template <typename T>
constexpr long padded(long n) {
  return (n + kCols<T> - 1) / kCols<T> * kCols<T>;
}
// Row stride of a block: rows a power of two apart would fall on the same cache lines.
template <typename T>
constexpr long stride(long n) {
  return padded<T>(n) + 16;
}

// Tile of C = A B. A(i, k) stands at a[i * row + k * step], B in a packed panel.
template <typename T, bool kUnitStep>
LAMKIT_INLINE void tile(const T* a, long row, long step, const T* panel, long K, Vec<T> (&c)[kRows][2]) {
#pragma GCC unroll 32
  for (int i = 0; i < kRows; i++) c[i][0] = c[i][1] = Vec<T>{};
#pragma GCC unroll 2
  for (long k = 0; k < K; k++) {
    const Vec<T> b0 = load<T>(panel + k * kCols<T>), b1 = load<T>(panel + k * kCols<T> + kLanes<T>);
#pragma GCC unroll 32
    for (int i = 0; i < kRows; i++) {
      const T x = kUnitStep ? a[i * row + k] : a[i + k * step];
      c[i][0] += x * b0;
      c[i][1] += x * b1;
    }
  }
}

// Right factor of the products with rows, packed.
template <typename T>
struct Packed {
  const T* data;
  long K, N;  // N columns, without padding
  const T* panel(long j) const { return data + j * K * kCols<T>; }
  long panels() const { return padded<T>(N) / kCols<T>; }
};

// B = W^T with W [N, K] of row stride ld: what a linear layer multiplies with. There is room for padded(N) K.
template <typename T>
void pack_transposed(const T* w, long ld, const Packed<T>& to) {
  const long K = to.K, N = to.N;
  T* out = const_cast<T*>(to.data);
  Pool::instance().run(to.panels(), [=](long j, int) {
    T* panel = out + j * K * kCols<T>;
    const long n = std::min<long>(kCols<T>, N - j * kCols<T>);
    constexpr long depth = 64 / sizeof(T);  // a cache line of every row at a time
    for (long k0 = 0; k0 < K; k0 += depth)
      for (long c = 0; c < kCols<T>; c++)
        for (long k = k0; k < std::min(K, k0 + depth); k++)
          panel[k * kCols<T> + c] = c < n ? w[(j * kCols<T> + c) * ld + k] : T(0);
  });
}

// B = W with W [K, N]: what the gradient of a linear layer multiplies with.
template <typename T>
void pack(const T* w, long ld, const Packed<T>& to) {
  const long K = to.K, N = to.N;
  T* out = const_cast<T*>(to.data);
  Pool::instance().run(to.panels(), [=](long j, int) {
    T* panel = out + j * K * kCols<T>;
    const long n = std::min<long>(kCols<T>, N - j * kCols<T>);
    for (long k = 0; k < K; k++) {
      std::memcpy(panel + k * kCols<T>, w + k * ld + j * kCols<T>, n * sizeof(T));
      std::fill(panel + k * kCols<T> + n, panel + (k + 1) * kCols<T>, T(0));
    }
  });
}

// Block of C = A B on one thread; A and C have room for rows up to a multiple of kRows and padded columns.
template <typename T>
void block_product(const T* a, long lda, long rows, const Packed<T>& b, T* c, long ldc) {
  for (long j = 0; j < b.panels(); j++)
    for (long i = 0; i < rows; i += kRows) {
      Vec<T> sum[kRows][2];
      tile<T, true>(a + i * lda, lda, 0, b.panel(j), b.K, sum);
#pragma GCC unroll 32
      for (int r = 0; r < kRows; r++) {
        store<T>(c + (i + r) * ldc + j * kCols<T>, sum[r][0]);
        store<T>(c + (i + r) * ldc + j * kCols<T> + kLanes<T>, sum[r][1]);
      }
    }
}

// Rows per block: few enough for two blocks in the second-level cache, and such that the threads end together.
template <typename T>
long block_rows(long M, long width) {
  const long most = std::max<long>(1, 290000 / static_cast<long>(sizeof(T)) / std::max<long>(width, 64) / kRows);
  const long tiles = (M + kRows - 1) / kRows, threads = Pool::instance().threads();
  long best = 1, shortest = std::numeric_limits<long>::max();
  for (long size = most; size >= std::min<long>(most, 2); size--) {
    const long blocks = (tiles + size - 1) / size;
    const long length = (blocks + threads - 1) / threads * size;  // tiles of the thread that ends last
    if (length < shortest) {
      shortest = length;
      best = size;
    }
  }
  return best * kRows;
}

// C [N, K] = sum over rows m of G(m, :)^T X(m, :), in chunks of rows, both factors made by functors:
// left(m, j, n, out) writes G(m, j ... j+n), right(m, j, n, out) writes X(m, j ... j+n). The column sums of G go
// to sums [N] unless it is null. The order of additions is fixed by the chunk length alone.
template <typename T, typename Left, typename Right>
void outer_product(long M, long N, long K, Left left, Right right, T* c, long ldc, T* sums, size_t slot) {
  Pool& pool = Pool::instance();
  constexpr long chunk = 512;
  const long depth = std::min(M, chunk);
  const long tall = (N + kRows - 1) / kRows, wide = padded<T>(K) / kCols<T>;
  T* a = Arena::instance().get<T>(slot, tall * kRows * depth);
  T* b = Arena::instance().get<T>(slot + 1, wide * kCols<T> * depth);
  if (M == 0) {
    for (long i = 0; i < N; i++) std::fill(c + i * ldc, c + i * ldc + K, T(0));
    if (sums) std::fill(sums, sums + N, T(0));
  }
  constexpr long stack = 8;  // panels of the left factor that stay in the second-level cache
  for (long m0 = 0; m0 < M; m0 += chunk) {
    const long m1 = std::min(M, m0 + chunk), size = m1 - m0;
    pool.run(tall + wide, [&](long p, int) {
      if (p < tall) {
        T* out = a + p * kRows * depth;
        const long n = std::min<long>(kRows, N - p * kRows);
        T sum[kRows] = {};
        for (long m = m0; m < m1; m++, out += kRows) {
          for (long i = n; i < kRows; i++) out[i] = 0;
          left(m, p * kRows, n, out);
          for (long i = 0; i < n; i++) sum[i] += out[i];
        }
        if (sums)
          for (long i = 0; i < n; i++) sums[p * kRows + i] = sum[i] + (m0 ? sums[p * kRows + i] : T(0));
      } else {
        const long q = p - tall;
        T* out = b + q * kCols<T> * depth;
        const long n = std::min<long>(kCols<T>, K - q * kCols<T>);
        for (long m = m0; m < m1; m++, out += kCols<T>) {
          for (long i = n; i < kCols<T>; i++) out[i] = 0;
          right(m, q * kCols<T>, n, out);
        }
      }
    });
    const long stacks = (tall + stack - 1) / stack;
    pool.run(stacks, [&](long s, int) {
      for (long q = 0; q < wide; q++)
        for (long p = s * stack; p < std::min(tall, (s + 1) * stack); p++) {
          Vec<T> sum[kRows][2];
          tile<T, false>(a + p * kRows * depth, 0, kRows, b + q * kCols<T> * depth, size, sum);
          const long rows = std::min<long>(kRows, N - p * kRows), cols = std::min<long>(kCols<T>, K - q * kCols<T>);
          for (long i = 0; i < rows; i++) {
            T* out = c + (p * kRows + i) * ldc + q * kCols<T>;
            if (cols == kCols<T>) {
              store<T>(out, m0 ? load<T>(out) + sum[i][0] : sum[i][0]);
              store<T>(out + kLanes<T>, m0 ? load<T>(out + kLanes<T>) + sum[i][1] : sum[i][1]);
            } else {
              for (long j = 0; j < cols; j++) {
                const T x = j < kLanes<T> ? sum[i][0][j] : sum[i][1][j - kLanes<T>];
                out[j] = m0 ? out[j] + x : x;
              }
            }
          }
        }
    });
  }
}

}  // namespace lamkit
