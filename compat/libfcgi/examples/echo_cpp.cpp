// SPDX-License-Identifier: MIT
// std::cin and std::cout on a request.
#include <iostream>
#include <string>

#include "fcgio.h"

int main()
{
    FCGX_Request r;
    FCGX_Init();
    FCGX_InitRequest(&r, 0, 0);
    std::streambuf *const out_before = std::cout.rdbuf(), *const in_before = std::cin.rdbuf();
    while (FCGX_Accept_r(&r) == 0) {
        char buffer[64]; // a small one: both ways through it are used
        fcgi_streambuf in(r.in, buffer, sizeof buffer), out(r.out);
        std::cin.rdbuf(&in);
        std::cout.rdbuf(&out);
        std::string word;
        unsigned words = 0;
        std::cout << "Content-Type: text/plain\r\n\r\n";
        while (std::cin >> word) std::cout << ++words << " " << word << "\n";
        std::cin.clear();
        std::cout << "role " << FCGX_GetParam("FCGI_ROLE", r.envp) << std::endl;
        std::cin.rdbuf(in_before);
        std::cout.rdbuf(out_before);
        FCGX_Finish_r(&r);
    }
    return 0;
}
